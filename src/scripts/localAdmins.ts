import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { LOCAL_STATE } from './migrations.ts';

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
      const sql = `SELECT 1 FROM users WHERE role = 'admin' AND status = 'active' LIMIT 1`;
      return database.prepare(sql).get() !== undefined;
    } catch {
      // Locked by a write at this moment, or of another Worker.
      return false;
    }
  });
}
