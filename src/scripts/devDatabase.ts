import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT, UserError } from './cli.ts';
import { readText } from './devVars.ts';
import { hyperdriveId, POSTGRES_BUILD } from './hyperdrive.ts';
import { hasAdmin, HAS_ADMIN_SQL } from './localAdmins.ts';
import { applyMigrations, D1_MIGRATIONS } from './migrations.ts';
import { databaseUrl, migratePostgres, placeOf, withPostgres } from './postgres.ts';
import { POSTGRES_MIGRATIONS } from './postgresMigrations.ts';

/** The database that `npm run dev` runs on. */
export interface DevDatabase {
  /** For the screen, and to tell one from another: without user and password. */
  description: string;
  isPostgres: boolean;
  /** The folder of its migrations. */
  migrations: string;
  /** @throws {UserError} when it cannot be reached, or is none that the app can use */
  migrate: (signal: AbortSignal) => Promise<void>;
  /** Whether it has an administrator who can sign in. */
  hasAdmin(): Promise<boolean>;
  /** What wrangler is given for it. `remove` deletes what that needs on the disk. */
  wrangler(port: number): { args: readonly string[]; env: Readonly<Record<string, string>>; remove: () => void };
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
  wrangler: () => ({ args: [], env: {}, remove: () => undefined }),
};

function postgresAt(url: string): DevDatabase {
  return {
    description: `PostgreSQL, at ${placeOf(url)}`,
    isPostgres: true,
    migrations: POSTGRES_MIGRATIONS,
    migrate: () => migratePostgres(url),
    hasAdmin: () => withPostgres(url, async (client) => (await client.query(HAS_ADMIN_SQL)).rows.length > 0),
    wrangler(port) {
      const env = { ...POSTGRES_BUILD, CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE: url };
      if (hyperdriveId(WRANGLER_TOML, '') !== undefined) return { args: [], env, remove: () => undefined };
      // In the same folder, so that the paths in it mean the same; the address is not written to the disk.
      const file = join(ROOT, `.wrangler.dev.${port}.toml`);
      writeFileSync(file, `${readText(WRANGLER_TOML) ?? ''}\n[[hyperdrive]]\nbinding = "HYPERDRIVE"\nid = "local"\n`);
      return { args: [`--config=${file}`], env, remove: () => rmSync(file, { force: true }) };
    },
  };
}
