import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { LOCAL_STATE } from './migrations.ts';

/** Yields a row when there is an administrator who can sign in. */
export const HAS_ADMIN_SQL = `SELECT 1 FROM users WHERE role = 'admin' AND status = 'active' LIMIT 1`;

/**
 * Whether the local database has an administrator who can sign in. Read past wrangler, which takes seconds; a database that
 * cannot be read is as good as one without.
 */
export function hasAdmin(): boolean {
  const directory = join(LOCAL_STATE, 'miniflare-D1DatabaseObject');
  const names = readdirSync(directory).filter((name) => name.endsWith('.sqlite') && name !== 'metadata.sqlite');
  return names.some((name) => {
    try {
      using database = new DatabaseSync(join(directory, name), { readOnly: true });
      return database.prepare(HAS_ADMIN_SQL).get() !== undefined;
    } catch {
      // Locked by a write at this moment, or of another Worker.
      return false;
    }
  });
}
