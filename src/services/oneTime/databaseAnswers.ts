import { sql } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { users } from '../../db/schema';

/**
 * Asks the database the same for every address, before a mail is promised: an outage then shows for every address, and tells
 * nothing about any of them.
 *
 * @throws {DatabaseUnavailable}
 */
export async function assertDatabaseAnswers(database: Database): Promise<void> {
  await database.run((db) =>
    db
      .select({ one: sql`1` })
      .from(users)
      .limit(1),
  );
}
