import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';

import { afterAll, expect, test } from 'vitest';

import { pages, ROOT } from './pages.ts';

/**
 * Names that pages use without importing them, by the module that has them: a page shows the lines that matter. `(…)` is
 * a package.
 */
const NAMES: Readonly<Record<string, string>> = {
  Hono: '(hono)',
  stream: '(hono/streaming)',
  z: '(zod)',
  'and eq lte': '(drizzle-orm)',
  'table text': '(#db)',
  AppError: 'errors',
  'Controller Get Guard RateLimit controllerRoutes': 'decorators',
  orders: 'db/schema',
  'authenticate authOf': 'middlewares/auth.middleware',
  validJson: 'middlewares/body.middleware',
  reads: 'middlewares/reads.middleware',
  cached: 'middlewares/cached.middleware',
  check: 'middlewares/check',
  guard: 'middlewares/guard.middleware',
  idempotent: 'middlewares/idempotent.middleware',
  limitFrom: 'middlewares/limiterOptions',
  policy: 'middlewares/policy',
  rateLimiter: 'middlewares/rateLimiter.middleware',
  CacheService: 'services/cache.service',
  'LockService lockRefused': 'services/lock.service',
  RedisService: 'services/redis.service',
  SessionService: 'services/session.service',
};
const TYPES: Readonly<Record<string, string>> = {
  Context: '(hono)',
  AppEnv: 'middlewares/services.middleware',
  PersonalTable: 'personalData',
  WarmingJob: 'services/warming.service',
};

/** What every block may use. */
const GIVEN = `declare const app: Hono<AppEnv>, userId: string, email: string, password: string;`;

interface Block {
  page: string;
  line: number;
  /** Declarations of what the page leaves out. */
  given: string;
  code: string;
}

/**
 * The blocks of a page. A comment before a block, which readers do not see, says more: `<!-- given: declare const id: string; -->`
 * declares what the page leaves out, `<!-- continues -->` adds to the block before, `<!-- not compiled: why -->` leaves one out.
 */
function blocksOf({ name, text }: { name: string; text: string }): Block[] {
  const blocks: Block[] = [];
  const found = text.matchAll(
    /(?:^<!-- (continues|given|not compiled):? ?((?:(?!-->).)*?) ?-->\n+)?^```ts\n(.*?)^```$/gms,
  );
  for (const { 1: kind, 2: note = '', 3: code = '', index } of found) {
    if (kind === 'not compiled') continue;
    const line = text.slice(0, index).split('\n').length;
    const last = blocks.at(-1);
    if (kind === 'continues' && last !== undefined) last.code += `\n${code}`;
    else blocks.push({ page: name, line, given: note, code });
  }
  return blocks;
}

/** As a module in `src/routes`: imports first, and the rest as the body of a function, where `await` and `return` may stand. */
function moduleOf({ given, code }: Block): string {
  const imports = code.match(/^import [^;]*;/gm) ?? [];
  const declarations = `${GIVEN}\n${given}`;
  const body = code
    .replaceAll(/^import [^;]*;/gm, '')
    .replaceAll(/^export (?=const|function|class|type|interface)/gm, '');
  const isMissing = (name: string) =>
    new RegExp(String.raw`\b${name}\b`).test(declarations + body) &&
    !imports.some((line) => new RegExp(String.raw`\b${name}\b(?!['/.-])`).test(line)) &&
    !new RegExp(String.raw`(?:const|class) ${name}\b`).test(declarations + body);
  const importsOf = (table: Readonly<Record<string, string>>, keyword: string) =>
    Object.entries(table).flatMap(([names, from]) => {
      const missing = names.split(' ').filter(isMissing);
      const path = from.startsWith('(') ? from.slice(1, -1) : `../${from}`;
      return missing.length === 0 ? [] : [`${keyword} { ${missing.join(', ')} } from '${path}';`];
    });
  return [...importsOf(NAMES, 'import'), ...importsOf(TYPES, 'import type'), ...imports]
    .concat(declarations, `export async function* fragment() {\n${body}\n}\n`)
    .join('\n');
}

const folder = (mkdirSync(join(ROOT, 'dist'), { recursive: true }), mkdtempSync(join(ROOT, 'dist/docs-')));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const blocks = pages.flatMap(blocksOf);

function compile(): string {
  const file = (name: string, text: string) => writeFileSync(join(folder, name), text);
  for (const name of ['routes', 'db']) mkdirSync(join(folder, name));
  for (const block of blocks) {
    file(`routes/${block.page.replaceAll(/\W/g, '-')}-${block.line}.ts`, moduleOf(block));
  }
  // The tables that docs/routes.md adds to the schema.
  file(
    'db/schema.ts',
    `export * from '../../../src/db/schema';\nexport { orders } from '../../../test/worker/examples/orders.routes';\n` +
      `export { notes } from '../../../test/worker/examples/notes.table';\n`,
  );
  const compilerOptions = {
    rootDirs: ['../../src', '.'],
    paths: {
      'gatehouse-client': ['../../src/client/index.ts'],
      'gatehouse-client/hono': ['../../src/client/hono.ts'],
    },
    types: ['../../src/worker-configuration.d.ts', '@cloudflare/workers-types', 'node'],
    noUnusedLocals: false,
    noUnusedParameters: false,
    noImplicitReturns: false,
  };
  file(
    'tsconfig.json',
    JSON.stringify({ extends: '../../tsconfig.json', compilerOptions, include: ['./**/*.ts'], exclude: [] }),
  );
  try {
    return execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', folder, '--pretty', 'false'], { encoding: 'utf8' });
  } catch (error) {
    return String((error as { stdout?: unknown }).stdout ?? error).replaceAll(relative(ROOT, folder), '');
  }
}

test('there are blocks of TypeScript', () => {
  expect(blocks.map(({ page }) => page)).toEqual(
    expect.arrayContaining(['README.md', 'docs/routes.md', 'docs/cache.md']),
  );
});

test('the TypeScript of all pages compiles', () => {
  expect(compile()).toBe('');
});
