import { eq, sql } from 'drizzle-orm';

import type { Drizzle, Statement } from '../../db/client';
import { nextNumber } from '../../db/portable';
import { outbox, users } from '../../db/schema';
import type { UserRow } from '../../db/schema';
import type { UserVersions } from '../blacklist/denials';
import { flagsOf } from './message';
import type { createRequestDelivery } from './requestDelivery';
import { newRow, versionsMessage } from './rows';
import type { RowDeps } from './rows';

/** An outbox entry for a change of a user's versions. Only the database knows the new versions, after the change. */
export interface VersionsEntry {
  /** Statements for the batch, after the statement that raises a version, and before one that deletes the user. */
  statements(db: Drizzle): Statement[];
  deliver(versions: UserVersions): Promise<VersionsDelivery>;
}

export interface VersionsDelivery {
  pending: boolean;
  /**
   * The user under larger versions, if D1 was restored from a backup and Redis had larger ones. Sessions that the change
   * left alive continue under them; their tokens must carry them.
   */
  overtaken?: UserRow;
}

/** Messages about a user's versions: a change raises them in the database, and the new versions are delivered to Redis. */
export function createVersions(deps: RowDeps, { deliver }: ReturnType<typeof createRequestDelivery>) {
  /** @param raised the versions that the change raises */
  function prepare(userId: string, raised: readonly (keyof UserVersions)[] = ['epoch']): VersionsEntry {
    const row = newRow(deps);
    return {
      statements: (db) => [
        db.insert(outbox).select(
          db
            .select({
              seq: nextNumber(outbox.seq).as('seq'),
              id: sql<string>`${row.id}`.as('id'),
              message: versionsMessage(raised).as('message'),
              state: sql<'pending'>`${row.state}`.as('state'),
              dueAtMs: sql<number>`${row.dueAtMs}`.as('due_at_ms'),
              createdAtMs: sql<number>`${row.createdAtMs}`.as('created_at_ms'),
              expiresAtMs: sql<number>`${row.expiresAtMs}`.as('expires_at_ms'),
            })
            .from(users)
            .where(eq(users.id, userId)),
        ),
      ],
      async deliver({ epoch, accessVersion }) {
        const message = { kind: 'epoch', userId, epoch, accessVersion, ...flagsOf(raised) } as const;
        const { pending, overtaken } = await deliver([row.id], [message]);
        const owner = overtaken?.get(userId);
        return { pending, ...(owner && { overtaken: owner }) };
      },
    };
  }

  return { prepare };
}
