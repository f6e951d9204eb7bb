import { expect, test } from 'vitest';

import { DEFINITIONS } from '../../../src/metrics/definitions';
import { MAX_SERIES } from '../../../src/redis/scripts/metricsAdd';
import { pages } from './pages.ts';

const { text } = pages.find(({ name }) => name === 'docs/metrics.md')!;

/** Each series with its kind (and unit) and its labels. */
const rows = Array.from(
  text.matchAll(/^\| `((?:http|db|gatehouse)\.[\w.]+)` \| (\w+)(?:, s)? \|([^|]*)\|/gm),
  ([, name = '', kind = '', labels = '']) => ({
    name,
    kind,
    // In brackets stand the values of a label.
    labels: Array.from(labels.replaceAll(/\([^)]*\)/g, '').matchAll(/`([\w.]+)`/g), ([, label = '']) => label),
  }),
);

test('docs/metrics.md lists every instrument with its kind and labels, and no other', () => {
  const shown = new Map(rows.map(({ name, kind, labels }) => [name, { kind, labels }]));
  const defined = Object.values(DEFINITIONS).map(({ name, kind, labels }) => [name, { kind, labels }] as const);
  expect(Object.fromEntries(shown)).toEqual(Object.fromEntries(defined));
});

test('seconds are marked as such', () => {
  const inSeconds = Array.from(text.matchAll(/^\| `([\w.]+)` \| \w+, s \|/gm), ([, name]) => name);
  const defined = Object.values(DEFINITIONS).filter(({ unit }) => unit === 's');
  expect(inSeconds).toEqual(defined.map(({ name }) => name));
});

test('the bound of series is the code’s', () => {
  expect(text).toContain(`values of series beyond ${MAX_SERIES.toLocaleString('en')}`);
});
