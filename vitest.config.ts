import { fileURLToPath } from 'node:url';

import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-plugin';
import { transform } from 'esbuild';
import { defineConfig } from 'vitest/config';
import type { Plugin } from 'vitest/config';

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

export default defineConfig({
  test: {
    reporters: process.env['CI'] ? ['default'] : ['default'],
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
          include: ['test/worker/**/*.test.ts'],
          globalSetup: ['test/support/globalSetup.ts'],
          setupFiles: ['test/support/workerSetup.ts'],
          testTimeout: 15_000,
        },
      },
      {
        test: {
          name: 'node',
          environment: 'node',
          include: ['test/node/**/*.test.ts', 'test/contract/**/*.test.ts'],
          globalSetup: ['test/support/buildWorker.ts'],
          testTimeout: 60_000,
          // Tests that cause outages share the machine with the servers that they break: a second try tells a moment without
          // a free core from a defect. A retried test is reported as such.
          retry: 1,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
