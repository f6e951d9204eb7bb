import { join } from 'node:path';

import { ROOT, UserError } from './cli.ts';
import { hyperdriveId, POSTGRES_BUILD } from './hyperdrive.ts';
import { hasAdmin, HAS_ADMIN_SQL } from './localAdmins.ts';
import { applyMigrations, D1_MIGRATIONS } from './migrations.ts';
import { databaseUrl, migratePostgres, placeOf, withPostgres } from './postgres.ts';
import { POSTGRES_MIGRATIONS } from './postgresMigrations.ts';

/** The database that `npm run dev` runs on. */
export interface DevDatabase {
  /** For the screen, and to distinguish databases: without user and password. */
  description: string;
  isPostgres: boolean;
  /** The folder of its migrations. */
  migrations: string;
  /** @throws {UserError} if it is unreachable, or the app cannot use it */
  migrate: (signal: AbortSignal) => Promise<void>;
  /** Whether it has an administrator who can sign in. */
  hasAdmin(): Promise<boolean>;
  /** The settings and variables for wrangler. `toml` is added to wrangler.toml. */
  wrangler(): { toml: string; env: Readonly<Record<string, string>> };
}

/** @throws {UserError} when DATABASE_URL is no address of a PostgreSQL database, or is missing where wrangler.toml asks for one */
export function devDatabase(env: Readonly<Record<string, string | undefined>>): DevDatabase {
  const url = databaseUrl(env);
  if (url !== undefined) return postgresAt(url);
  if (hyperdriveId(WRANGLER_TOML, '') === undefined) return D1;
  throw new UserError(
    'wrangler.toml binds HYPERDRIVE, so the app is on PostgreSQL: DATABASE_URL=postgres://… npm run dev.',
  );
}

const WRANGLER_TOML = join(ROOT, 'wrangler.toml');

const D1: DevDatabase = {
  description: 'D1, local, in .wrangler/state',
  isPostgres: false,
  migrations: D1_MIGRATIONS,
  migrate: applyMigrations,
  hasAdmin: () => Promise.resolve(hasAdmin()),
  wrangler: () => ({ toml: '', env: {} }),
};

function postgresAt(url: string): DevDatabase {
  return {
    description: `PostgreSQL, at ${placeOf(url)}`,
    isPostgres: true,
    migrations: POSTGRES_MIGRATIONS,
    migrate: () => migratePostgres(url),
    hasAdmin: () => withPostgres(url, async (client) => (await client.query(HAS_ADMIN_SQL)).rows.length > 0),
    wrangler() {
      // The address is not written to the disk.
      const env = { ...POSTGRES_BUILD, CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE: url };
      const isBound = hyperdriveId(WRANGLER_TOML, '') !== undefined;
      return { toml: isBound ? '' : '\n[[hyperdrive]]\nbinding = "HYPERDRIVE"\nid = "local"\n', env };
    },
  };
}
