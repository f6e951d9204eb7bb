import { randomUUID } from 'node:crypto';
import { cp, mkdir, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { build } from 'esbuild';

import { ROOT } from './cli.ts';

const require = createRequire(import.meta.url);
const page = (name: string) => join(ROOT, 'src/scripts/docsPage', name);
const deletionPage = (name: string) => join(ROOT, 'src/scripts/deletionPage', name);
const swaggerUi = (name: string) => join(dirname(require.resolve('swagger-ui-dist/package.json')), name);

/** Files that are served as they are, before the Worker is asked: where they lie, by the path that they are served at. */
const ASSETS: Readonly<Record<string, string>> = {
  _headers: page('_headers'),
  'docs.html': page('docs.html'),
  'docs/start.js': page('start.js'),
  'docs/swagger-ui-bundle.js': swaggerUi('swagger-ui-bundle.js'),
  'docs/swagger-ui.css': swaggerUi('swagger-ui.css'),
  'docs/LICENSE': swaggerUi('LICENSE'),
  'delete-account.html': deletionPage('delete-account.html'),
  'delete-account/start.js': deletionPage('start.js'),
  'delete-account/style.css': deletionPage('style.css'),
  'console.html': join(ROOT, 'src/console/console.html'),
  'console/LICENSE-uplot': join(dirname(require.resolve('uplot/package.json')), 'LICENSE'),
  'openapi.json': join(ROOT, 'docs/openapi.json'),
};

/** The directory that `[assets]` in wrangler.toml names. */
const DIRECTORY = join(ROOT, 'dist/assets');

/** Puts together what `[assets]` serves; wrangler refuses to start without it. */
export async function buildAssets(): Promise<void> {
  // Another build may be under way, in this process or another one, and others serve what is there: they see all or nothing.
  const made = `${DIRECTORY}.${randomUUID()}`;
  for (const [path, from] of Object.entries(ASSETS)) {
    const to = join(made, path);
    await mkdir(dirname(to), { recursive: true });
    await cp(from, to);
  }
  await buildConsole(join(made, 'console'));
  const former = `${made}.former`;
  await rename(DIRECTORY, former).catch(ignoreMissing);
  await rename(made, DIRECTORY).catch(ignoreTaken);
  await Promise.all([made, former].map((folder) => rm(folder, { recursive: true, force: true })));
}

/** The console's script and style sheet. */
async function buildConsole(directory: string): Promise<void> {
  await build({
    entryPoints: { console: join(ROOT, 'src/console/main.tsx') },
    outdir: directory,
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2023',
    jsx: 'automatic',
    jsxImportSource: 'hono/jsx/dom',
    tsconfigRaw: {},
    logLevel: 'error',
  });
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}

/** Another process was first, with the same files. */
function ignoreTaken(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
}

if (import.meta.main) await buildAssets();
