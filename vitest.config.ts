import { fileURLToPath } from 'node:url';

import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-plugin';
import { transform } from 'esbuild';
import { defineConfig } from 'vitest/config';
import type { Plugin } from 'vitest/config';

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

/** Tests in Node: real servers, real HTTP. */
const inNode = {
  environment: 'node' as const,
  globalSetup: ['test/support/buildWorker.ts'],
  setupFiles: ['test/support/contract/recordFetch.ts'],
  testTimeout: 60_000,
  hookTimeout: 60_000,
};

/** What causes outages, and waits for deadlines and leases: one file at a time, so that only what it breaks is slow. */
const OUTAGES = ['test/node/{faults,losses,lock,rateLimit}/**/*.test.ts', 'test/contract/*.failover.test.ts'];

export default defineConfig({
  test: {
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
          sequence: { groupOrder: 1 },
          maxWorkers: 2,
          include: ['test/worker/**/*.test.ts'],
          globalSetup: ['test/support/globalSetup.ts'],
          setupFiles: ['test/support/workerSetup.ts'],
          testTimeout: 15_000,
        },
      },
      {
        test: {
          ...inNode,
          name: 'node',
          sequence: { groupOrder: 2 },
          maxWorkers: 2,
          include: ['test/node/**/*.test.ts', 'test/contract/**/*.test.ts'],
          exclude: OUTAGES,
          // Two files at a time share the machine with all servers that they start: a second try tells a moment without a
          // free core from a defect. A retried test is reported as such.
          retry: 1,
        },
      },
      {
        // Simulated time, and one event at a time: nothing here depends on how busy the machine is, so nothing is retried.
        test: {
          environment: 'node',
          name: 'simulation',
          sequence: { groupOrder: 2 },
          maxWorkers: 2,
          include: ['test/simulation/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          ...inNode,
          name: 'outages',
          sequence: { groupOrder: 3 },
          maxWorkers: 1,
          include: OUTAGES,
          // As above: the servers that a test breaks run beside it.
          retry: 1,
        },
      },
    ],
  },
});
