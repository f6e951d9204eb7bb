import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';

import { build } from 'esbuild';

import { ROOT, runProgram } from './cli.ts';

const HELP = `npm run build:client [-- --out DIRECTORY]

Builds the client library into dist/client: a package for \`npm pack\` and \`npm publish\`.
`;

const SOURCE = join(ROOT, 'src/client');

await runProgram(async () => {
  const { values } = parseArgs({
    options: { help: { type: 'boolean', short: 'h' }, out: { type: 'string', default: join(ROOT, 'dist/client') } },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const out = resolve(values.out);
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  await Promise.all([bundle(out), declarations(out), describe(out)]);
  console.error(`Built ${out}`);
});

async function bundle(out: string): Promise<void> {
  await build({
    entryPoints: [join(SOURCE, 'index.ts')],
    outfile: join(out, 'index.js'),
    bundle: true,
    minify: true,
    sourcemap: true,
    format: 'esm',
    platform: 'neutral',
    target: 'es2022',
    logLevel: 'error',
  });
}

/** Types of the sources, with imports as Node and bundlers resolve them. */
async function declarations(out: string): Promise<void> {
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const project = ['-p', join(SOURCE, 'tsconfig.json'), '--outDir', out];
  const emit = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly'];
  await promisify(execFile)(process.execPath, [tsc, ...project, ...emit]);
  for (const name of (await readdir(out)).filter((file) => file.endsWith('.d.ts'))) {
    const text = await readFile(join(out, name), 'utf8');
    await writeFile(join(out, name), text.replaceAll(/(from ['"]\.\/[\w-]+)\.ts(['"])/g, '$1.js$2'));
  }
  // Types alone, but a resolver wants a module behind them.
  await writeFile(join(out, 'hono.js'), 'export {};\n');
}

async function describe(out: string): Promise<void> {
  const { version, license } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as Record<string, string>;
  const manifest = {
    name: 'gatehouse-client',
    version,
    license,
    description: 'Signs in, keeps signed in, and calls the API of a Gatehouse server.',
    type: 'module',
    sideEffects: false,
    exports: {
      '.': { types: './index.d.ts', default: './index.js' },
      './hono': { types: './hono.d.ts', default: './hono.js' },
      './package.json': './package.json',
    },
    types: './index.d.ts',
    engines: { node: '>=20' },
    peerDependencies: { hono: '>=4' },
    peerDependenciesMeta: { hono: { optional: true } },
  };
  await writeFile(join(out, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  // The other pages are not in the package.
  const page = await readFile(join(ROOT, 'docs/clients.md'), 'utf8');
  const readme = page.replaceAll(/\[([^\]]+)\]\(([\w-]+\.md)(?:#[\w-]+)?\)/g, '$1 (`docs/$2` of the server)');
  await writeFile(join(out, 'README.md'), readme);
  await copyFile(join(ROOT, 'LICENSE'), join(out, 'LICENSE'));
}
