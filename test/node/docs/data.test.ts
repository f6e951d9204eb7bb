import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { createKeys } from '../../../src/redis/keys';
import { rowOf, rows, tables } from './dataPage.ts';
import { ROOT } from './pages.ts';

test('docs/data.md has a row for each table of the schema, and no other', () => {
  const schema = readFileSync(join(ROOT, 'src/db/schema.ts'), 'utf8');
  const stored = Array.from(schema.matchAll(/= table\(\s*'(\w+)'/g), ([, name = '']) => name);
  expect(stored.length).toBeGreaterThan(10);
  expect(new Set(tables)).toEqual(new Set(stored));
});

test('docs/data.md has a row for each kind of key that src/redis/keys.ts makes, and no other', () => {
  const keys = createKeys('app', 'secret');
  const made = Object.entries(keys)
    // Parts of keys, and what an app stores by itself.
    .filter(([name]) => !['account', 'origin', 'plain'].includes(name))
    .flatMap(([name, make]) => {
      if (typeof make !== 'function') return [make].flat();
      if (name === 'metricsSteps') return [keys.metricsSteps(10_000, 7), keys.metricsSteps(60_000, 7)];
      return [(make as (...parts: string[]) => string)('some.one', 'two', 'three')];
    });
  const found = made.map((key) => [key, rowOf(key.slice('app:'.length))]);
  expect(found.filter(([, row]) => row === undefined)).toEqual([]);
  expect(new Set(found.map(([, row]) => row))).toEqual(new Set(rows));
});
