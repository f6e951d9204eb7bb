import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { pages, ROOT } from './pages.ts';

const { paths } = JSON.parse(readFileSync(join(ROOT, 'docs/openapi.json'), 'utf8')) as {
  paths: Record<string, Record<string, unknown>>;
};
/** With `{}` for each parameter. */
const shapeOf = (path: string) => path.replaceAll(/\{\w+\}|:\w+|\bJOB\b/g, '{}');
const operations = new Set(
  Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${shapeOf(path)}`),
  ),
);

const METHODS = 'GET|POST|PUT|PATCH|DELETE';
/** `GET /v1/users?q=`, in text and in the tables; examples of routes of one's own are not the app's. */
const OWN = /^\/v1\/(?:orders|notes|…)/;

function named(text: string): string[] {
  return Array.from(
    text.matchAll(new RegExp(String.raw`\`(${METHODS}) (/[\w./{}:-]*)[^\`]*\``, 'g')),
    ([, method, path]) => ({
      method,
      path: path!,
    }),
  )
    .filter(({ path }) => path.startsWith('/v1/') && !OWN.test(path))
    .map(({ method, path }) => `${method} ${shapeOf(path)}`);
}

test('every operation that a page names is in the contract', () => {
  const unknown = pages.flatMap(({ name, text }) =>
    named(text).flatMap((operation) => (operations.has(operation) ? [] : [`${name}: ${operation}`])),
  );
  expect(unknown).toEqual([]);
});

test('every operation of the contract is in the tables of docs/api.md or docs/administration.md', () => {
  const read = (name: string) => pages.find((page) => page.name === name)!.text;
  const rows = `${read('docs/api.md')}\n${read('docs/administration.md')}`.match(/^\|.*\|$/gm) ?? [];
  const listed = new Set<string>();
  for (const row of rows) {
    let first = { method: '', path: '' };
    for (const [, method = first.method, path = ''] of row.matchAll(
      new RegExp(`\`(?:(${METHODS}) )?([/…][^\`? ]*)`, 'g'),
    )) {
      // `…/undo` has another end than the first path of its row, `…/:job` goes on where that one ends.
      const before = path.includes(':') ? first.path : first.path.slice(0, first.path.lastIndexOf('/'));
      const whole = path.replace('…', before);
      if (first.path === '') first = { method, path: whole };
      listed.add(`${method} ${shapeOf(whole)}`);
    }
  }
  expect([...operations].filter((operation) => !listed.has(operation))).toEqual([]);
});
