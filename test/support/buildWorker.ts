import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { TestProject } from 'vitest/node';

import { POSTGRES_BUILD } from '../../src/scripts/hyperdrive.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** The Worker as wrangler would deploy it. */
    workerBundle: string;
  }
}

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Bundles the Worker once for all tests that drive it over HTTP. */
export default async function setup(project: TestProject) {
  const { path, remove } = await bundleWorker();
  project.provide('workerBundle', path);
  return remove;
}

/** Bundles the Worker as wrangler would deploy it. @param engine the database that it is for */
export async function bundleWorker(engine: 'd1' | 'postgres' = 'd1') {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-'));
  await promisify(execFile)(join(root, 'node_modules/.bin/wrangler'), ['deploy', '--dry-run', '--outdir', folder], {
    cwd: root,
    env: {
      ...process.env,
      ...(engine === 'postgres' && POSTGRES_BUILD),
      WRANGLER_SEND_METRICS: 'false',
      CI: '1',
    },
  });
  return { path: join(folder, 'index.js'), remove: () => rm(folder, { recursive: true }) };
}
