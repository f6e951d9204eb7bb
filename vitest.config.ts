import { fileURLToPath } from 'node:url';

import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-plugin';
import { transform } from 'esbuild';
import { defineConfig } from 'vitest/config';
import type { Plugin } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';
import type { TestSpecification } from 'vitest/node';

import { buildAssets } from './src/scripts/buildAssets.ts';

// wrangler.toml names the directory, and whatever reads it wants it to be there.
await buildAssets();

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

/** Vite leaves TC39 decorators as they are, and workerd does not know them. */
function lowerDecorators(): Plugin {
  return {
    name: 'lower-decorators',
    enforce: 'pre',
    async transform(code, id) {
      if (!id.endsWith('.ts') || !/^\s*@[A-Z]\w*\(/m.test(code)) return null;
      return transform(code, { loader: 'ts', target: 'es2024', sourcefile: id, sourcemap: true });
    },
  };
}

/** Files that take longer than all others, the longest first. */
const LONG = [
  'test/simulation/simulation.test.ts',
  'test/simulation/postgres.test.ts',
  'test/browser/console.test.ts',
  'test/node/attacks/accounts.test.ts',
  'test/node/contract/everyResponse.test.ts',
  'test/node/scripts/dev.test.ts',
  'test/node/scripts/admin.test.ts',
  'test/node/db/postgres.test.ts',
];

/** Begins with the files of {@link LONG}: the last one to begin would otherwise run alone at the end, on one core. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const index = LONG.findIndex((file) => moduleId.endsWith(file));
      return index === -1 ? LONG.length : index;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

const EVERYWHERE = {
  // Only what hangs meets these limits, on a machine however slow: no test is about time.
  testTimeout: 600_000,
  hookTimeout: 600_000,
  expect: { poll: { timeout: 60_000 } },
  // Of all projects together. Tests wait for other processes more often than not: a third keeps two cores busy.
  maxWorkers: 3,
};

/** Tests of the engine for PostgreSQL: one file, so that they share a server. */
const POSTGRES = ['test/node/db/postgres.test.ts'];

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        plugins: [
          lowerDecorators(),
          cloudflareTest(async ({ inject }) => ({
            wrangler: { configPath: path('./wrangler.toml') },
            miniflare: {
              bindings: {
                ...inject('bindings'),
                TEST_MIGRATIONS: await readD1Migrations(path('./src/db/migrations')),
              },
            },
          })),
        ],
        test: {
          name: 'worker',
          // A workerd for all of its files: each keeps to users and keys of its own.
          isolate: false,
          include: ['test/worker/**/*.test.ts'],
          globalSetup: ['test/support/globalSetup.ts'],
          setupFiles: ['test/support/workerSetup.ts'],
          ...EVERYWHERE,
        },
      },
      {
        // Real servers, real HTTP.
        test: {
          name: 'node',
          environment: 'node',
          // A process for all of its files: to load Miniflare and the rest anew costs more than a second of CPU a file.
          isolate: false,
          include: ['test/node/**/*.test.ts', 'test/contract/**/*.test.ts', 'test/browser/**/*.test.ts'],
          exclude: POSTGRES,
          globalSetup: ['test/support/buildWorker.ts'],
          setupFiles: ['test/support/contract/recordFetch.ts'],
          ...EVERYWHERE,
        },
      },
      {
        test: {
          environment: 'node',
          name: 'postgres',
          // As the condition `postgres` has it in a build.
          alias: { '#db': path('./src/db/postgres/engine.ts') },
          include: POSTGRES,
          ...EVERYWHERE,
        },
      },
      {
        // Simulated time, and one event at a time: nothing here depends on how busy the machine is.
        test: {
          environment: 'node',
          name: 'simulation',
          include: ['test/simulation/**/*.test.ts'],
          ...EVERYWHERE,
        },
      },
    ],
  },
});
