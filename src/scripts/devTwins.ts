import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { ROOT } from './cli.ts';
import { readText } from './devVars.ts';

/** An `npm run dev` of this folder. */
export interface DevInstance {
  /** Base URL of its Worker. */
  url: string;
  /** Whether its Redis is in its own memory, so that no other one can use it. */
  embeddedRedis: boolean;
  /** Which database it has, without a password. */
  database: string;
}

const FILE = join(ROOT, '.wrangler/gatehouse-dev.json');

/**
 * Writes down that this one runs, and says so when another one does: both have the same database, and with Redis in
 * memory each has a Redis of its own. A logout on one is then not seen on the other before its access token expires.
 *
 * @returns what to do at the end
 */
export function announce(own: DevInstance, notice: (line: string) => void, file = FILE): () => void {
  const other = running(file);
  if (other?.database === own.database && (own.embeddedRedis || other.embeddedRedis)) {
    notice(
      `Another npm run dev of this folder runs at ${other.url}. Both use the same database, but each has a Redis of its own:`,
    );
    notice(
      'a logout or an invalidation on one is not seen on the other. Give both the same REDIS_URL, or use another copy of the folder.',
    );
  }
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify({ pid: process.pid, ...own }));
  return () => {
    if (instance(file)?.pid === process.pid) rmSync(file, { force: true });
  };
}

function running(file: string): DevInstance | undefined {
  const found = instance(file);
  return found !== undefined && found.pid !== process.pid && isAlive(found.pid) ? found : undefined;
}

function instance(file: string): (DevInstance & { pid: number }) | undefined {
  const text = readText(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as DevInstance & { pid: number };
  } catch {
    // Cut off in the middle: its writer was killed.
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
