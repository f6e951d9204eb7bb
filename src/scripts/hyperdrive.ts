import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { ROOT, UserError } from './cli.ts';
import { PROGRAM } from './wrangler.ts';
import { linesOf } from './wranglerToml.ts';

/** What wrangler needs for a build with the engine for PostgreSQL: its own conditions, and the one of package.json. */
export const POSTGRES_BUILD = { WRANGLER_BUILD_CONDITIONS: 'postgres,workerd,worker,browser' };

/**
 * The Hyperdrive configuration that wrangler.toml binds as `HYPERDRIVE`.
 *
 * @param environment `''` for production; environments do not inherit its bindings
 * @returns its id; `undefined` where the app runs on D1
 */
export function hyperdriveId(toml: string, environment: string): string | undefined {
  const lines = linesOf(toml, environment).filter(({ table }) => table === 'hyperdrive');
  const binding = lines.find(({ name, texts }) => name === 'binding' && texts[0] === 'HYPERDRIVE');
  return lines.find(({ name, tableNumber }) => name === 'id' && tableNumber === binding?.tableNumber)?.texts[0];
}

/**
 * @param shown what `wrangler hyperdrive get` prints: a JSON object, maybe after other lines
 * @returns what is wrong with the configuration
 */
export function cachingProblem(shown: string): string | undefined {
  const json = shown.slice(shown.indexOf('{'));
  let caching: unknown;
  try {
    ({ caching } = JSON.parse(json) as { caching?: unknown });
  } catch {
    return 'wrangler did not show the Hyperdrive configuration';
  }
  const isDisabled =
    typeof caching === 'object' && caching !== null && 'disabled' in caching && caching.disabled === true;
  return isDisabled ? undefined : 'Hyperdrive caches queries, and would serve what was revoked';
}

/** @throws {UserError} when the configuration caches queries */
export async function assertUncached(id: string): Promise<void> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--no-warnings', PROGRAM, 'hyperdrive', 'get', id], {
    cwd: ROOT,
  });
  const problem = cachingProblem(stdout);
  if (problem === undefined) return;
  throw new UserError(`Nothing was deployed. ${problem}: npx wrangler hyperdrive update ${id} --caching-disabled`);
}
