import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { promisify } from 'node:util';

import type * as Wrangler from 'wrangler';

import { ROOT, UserError } from './cli.ts';
import { readText } from './devVars.ts';
import { PROGRAM } from './wrangler.ts';

/** What wrangler needs for a build with the engine for PostgreSQL: its own conditions, and the one of package.json. */
export const POSTGRES_BUILD = { WRANGLER_BUILD_CONDITIONS: 'postgres,workerd,worker,browser' };

/**
 * The Hyperdrive configuration that wrangler.toml binds as `HYPERDRIVE`, as wrangler reads it, however it is written.
 *
 * @param file its path
 * @param environment `''` for production; environments do not inherit its bindings
 * @returns its id; `undefined` where the app runs on D1
 * @throws {UserError} where wrangler cannot read the file
 */
export function hyperdriveId(file: string, environment: string): string | undefined {
  if (!mayNameHyperdrive(readText(file) ?? '')) return undefined;
  const { experimental_readRawConfig: read } = createRequire(import.meta.url)('wrangler') as typeof Wrangler;
  let config: ReturnType<typeof read>['rawConfig'];
  try {
    config = read({ config: file }).rawConfig;
  } catch (error) {
    const [line] = (error as Error).message.split('\n');
    throw new UserError(`wrangler cannot read ${basename(file)}: ${line}`);
  }
  const { hyperdrive = [] }: Bindings = (environment === '' ? config : config.env?.[environment]) ?? {};
  return hyperdrive.find(({ binding }) => binding === 'HYPERDRIVE')?.id;
}

interface Bindings {
  hyperdrive?: { binding: string; id?: string | undefined }[] | undefined;
}

/** To load wrangler takes a second, which a project on D1 need not wait for. A name may be written with escapes. */
const mayNameHyperdrive = (toml: string): boolean => /hyperdrive|\\[uUx]/i.test(toml.replaceAll(/^\s*#.*$/gm, ''));

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
