import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { ERRORS } from '../../../src/errors';
import { ROOT } from './pages.ts';

const read = (page: string) => readFileSync(join(ROOT, 'docs', page), 'utf8');

/** The codes of a table's rows, each with the statuses that its row names. */
function codesOf(table: string): Map<string, number[]> {
  const codes = new Map<string, number[]>();
  for (const row of table.match(/^\| .*[1-5]\d\d.*\|$/gm) ?? []) {
    const statuses = Array.from(row.matchAll(/\b[1-5]\d\d\b/g), ([status]) => Number(status));
    for (const [, code = ''] of row.matchAll(/`([A-Z]+(?:_[A-Z]+)*)`/g)) {
      codes.set(code, [...(codes.get(code) ?? []), ...statuses]);
    }
  }
  return codes;
}

const api = read('api.md');
const clients = read('clients.md');

describe.each([
  [
    'the table of errors in docs/api.md',
    api.slice(api.indexOf('| status | codes |'), api.indexOf('What a mobile client')),
  ],
  ['the table of docs/clients.md', clients.slice(clients.indexOf('### Each code'), clients.indexOf('## Clients from'))],
])('%s', (_, table) => {
  const named = codesOf(table);

  test.each(Object.entries(ERRORS))('has %s under its status', (code, { status }) => {
    expect(named.get(code) ?? []).toContain(status);
  });

  test('names no code that does not exist', () => {
    expect([...named.keys()].filter((code) => !(code in ERRORS))).toEqual([]);
  });
});
