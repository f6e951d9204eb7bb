import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    /** The Worker as wrangler would deploy it. */
    workerBundle: string;
  }
}

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Bundles the Worker once for all tests that drive it over HTTP. */
export default async function setup(project: TestProject) {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-'));
  await promisify(execFile)(join(root, 'node_modules/.bin/wrangler'), ['deploy', '--dry-run', '--outdir', folder], {
    cwd: root,
    env: { ...process.env, WRANGLER_SEND_METRICS: 'false', CI: '1' },
  });
  project.provide('workerBundle', join(folder, 'index.js'));
  return () => rm(folder, { recursive: true });
}
