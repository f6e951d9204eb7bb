import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

/** A Worker of the tests' own, bundled; removed by the returned function. @param name a file of test/worker/support */
export async function bundleTestWorker(name: string): Promise<{ bundle: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-worker-'));
  const bundle = join(folder, 'index.js');
  await build({
    entryPoints: [fileURLToPath(new URL(`../worker/support/${name}`, import.meta.url))],
    outfile: bundle,
    bundle: true,
    format: 'esm',
    target: 'es2024',
    conditions: ['workerd', 'worker', 'browser'],
    external: ['node:*', 'cloudflare:*'],
    logLevel: 'error',
  });
  return { bundle, remove: () => rm(folder, { recursive: true }) };
}
