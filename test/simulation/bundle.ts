import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

import type { DatabaseKind } from './database.ts';
import type { Mutation } from './mutations.ts';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/**
 * The Worker as one script, whose last value is its module of exports: what `wrangler deploy` sends for `src`, and the few
 * routes of `app.ts`. Packaged so that each simulated isolate can be given globals of its own.
 *
 * @param database that it is for
 * @param mutation a change to one file of the source, to see whether the simulation notices
 * @throws when the text that the mutation changes is not there exactly once
 */
export async function bundleWorker(database: DatabaseKind, mutation?: Mutation): Promise<string> {
  let applied = false;
  const result = await build({
    entryPoints: [`${ROOT}test/simulation/app.ts`],
    bundle: true,
    write: false,
    format: 'iife',
    globalName: 'worker',
    platform: 'node',
    target: 'es2024',
    conditions: [...(database === 'postgres' ? ['postgres'] : []), 'workerd', 'worker'],
    // What an isolate imports while it runs it gets from its realm.
    external: ['cloudflare:sockets'],
    supported: { 'dynamic-import': false },
    legalComments: 'none',
    logLevel: 'error',
    plugins: [
      {
        name: 'mutation',
        setup(hooks) {
          hooks.onLoad({ filter: /\/src\/.*\.ts$/ }, async ({ path }) => {
            if (mutation === undefined || relative(ROOT, path) !== mutation.file) return undefined;
            const source = await readFile(path, 'utf8');
            applied = true;
            return { contents: mutated(source, mutation), loader: 'ts' };
          });
        },
      },
    ],
  });
  if (mutation !== undefined && !applied)
    throw new Error(`mutation ${mutation.name}: nothing imports ${mutation.file}`);
  return result.outputFiles[0]!.text;
}

function mutated(source: string, { name, before, after }: Mutation): string {
  if (source.split(before).length !== 2) throw new Error(`mutation ${name}: its text is not there exactly once`);
  return source.replace(before, () => after);
}
