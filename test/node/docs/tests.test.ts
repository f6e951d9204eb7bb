import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { pages, ROOT } from './pages.ts';

/** Where a page says that its tests are, unless it gives another path. */
const FOLDERS: Readonly<Record<string, string>> = {
  'docs/security.md': 'test/node/attacks',
  'docs/rate-limits.md': 'test/worker/services/rateLimit',
};
/** Names without a path in the column `test` of such a page. */
const ELSEWHERE: Readonly<Record<string, string>> = { guardMemory: 'test/worker/middlewares' };

const exists = (path: string) => [path, `${path}.test.ts`].some((one) => existsSync(join(ROOT, one)));

test('the tests that pages name exist', () => {
  const missing = pages.flatMap(({ name, text }) =>
    Array.from(
      text.matchAll(/`(?:test\/)?((?:worker|node|contract|simulation|browser)\/[\w./-]+)`/g),
      ([, path = '']) => (exists(`test/${path}`) ? [] : [`${name}: ${path}`]),
    ).flat(),
  );
  expect(missing).toEqual([]);
});

/** The rows of the tables whose last column is called `test`, and that cell. */
function testCells(text: string): string[] {
  const tables = text.matchAll(/^\|.*\| test[^|\n]* \|\n\| --- .*\n((?:\|.*\n)+)/gm);
  return Array.from(tables, ([, rows = '']) => rows.trim().split('\n'))
    .flat()
    .map((row) => row.split(' | ').at(-1) ?? '');
}

test.each(Object.entries(FOLDERS))('the tests that the tables of %s name are in %s', (name, folder) => {
  const cells = testCells(pages.find((page) => page.name === name)!.text);
  const named = cells.flatMap((cell) => Array.from(cell.matchAll(/`(\w+)`/g), ([, one = '']) => one));
  expect(named.length).toBeGreaterThan(10);
  expect(named.filter((one) => !exists(`${ELSEWHERE[one] ?? folder}/${one}`))).toEqual([]);
});

test('titles that docs/security.md names behind a file are in it', () => {
  const cells = testCells(pages.find(({ name }) => name === 'docs/security.md')!.text);
  const named = cells.flatMap((cell) => Array.from(cell.matchAll(/^`(\w+)`: (.+?) \|$/g), ([, ...found]) => found));
  expect(named.length).toBeGreaterThan(4);
  const missing = named.filter(([file = '', title = '']) => {
    const text = readFileSync(join(ROOT, FOLDERS['docs/security.md']!, `${file}.test.ts`), 'utf8');
    return !new RegExp(`^describe\\('${title}`, 'm').test(text);
  });
  expect(missing).toEqual([]);
});

test('titles that docs/idempotency.md names are titles of tests', () => {
  const { text } = pages.find(({ name }) => name === 'docs/idempotency.md')!;
  const titles = ['test/node/faults/idempotency.test.ts', 'test/node/contract/everyResponse.test.ts']
    .flatMap((file) =>
      readFileSync(join(ROOT, file), 'utf8').match(/\b(?:it|test|describe)(?:\.each\([^']*\))?\('.*?'/g),
    )
    .join('\n');
  // A table's cell is a title, with `…` for what it leaves out; in sentences they stand in brackets.
  const named = Array.from(
    text.matchAll(/(?: \| |\()`((?:… )?[a-z][a-z -]+(?: [\w-]+,?){2,}(?: …)?|… [\w ]+ …)`/g),
    ([, one = '']) => one,
  );
  expect(named.length).toBeGreaterThan(6);
  expect(named.filter((one) => !one.split('…').every((part) => titles.includes(part.trim())))).toEqual([]);
});
