import { cp, mkdir, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { ROOT } from './cli.ts';

const require = createRequire(import.meta.url);
const page = (name: string) => join(ROOT, 'src/scripts/docsPage', name);
const swaggerUi = (name: string) => join(dirname(require.resolve('swagger-ui-dist/package.json')), name);

/** Files that are served as they are, before the Worker is asked: where they lie, by the path that they are served at. */
const ASSETS: Readonly<Record<string, string>> = {
  _headers: page('_headers'),
  'docs.html': page('docs.html'),
  'docs/start.js': page('start.js'),
  'docs/swagger-ui-bundle.js': swaggerUi('swagger-ui-bundle.js'),
  'docs/swagger-ui.css': swaggerUi('swagger-ui.css'),
  'docs/LICENSE': swaggerUi('LICENSE'),
  'openapi.json': join(ROOT, 'docs/openapi.json'),
};

/** The directory that `[assets]` in wrangler.toml names. */
const DIRECTORY = join(ROOT, 'dist/assets');

/** Puts together what `[assets]` serves; wrangler refuses to start without it. */
export async function buildAssets(): Promise<void> {
  // Another process may do the same at this moment, or serve what is there: it sees all of it or nothing.
  const made = `${DIRECTORY}.${process.pid}`;
  await rm(made, { recursive: true, force: true });
  for (const [path, from] of Object.entries(ASSETS)) {
    const to = join(made, path);
    await mkdir(dirname(to), { recursive: true });
    await cp(from, to);
  }
  const former = `${made}.former`;
  await rename(DIRECTORY, former).catch(ignoreMissing);
  await rename(made, DIRECTORY).catch(ignoreTaken);
  await Promise.all([made, former].map((folder) => rm(folder, { recursive: true, force: true })));
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}

/** Another process was first, with the same files. */
function ignoreTaken(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
}

if (import.meta.main) await buildAssets();
