import { expect, test } from 'vitest';

import { DEFINITIONS } from '../../../src/metrics/definitions';
import { prometheusName } from '../../../src/metrics/prometheus';
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

test('the conditions to alert on name series and labels that exist', () => {
  const names = new Set(
    Object.values(DEFINITIONS).flatMap((definition) => {
      const name = prometheusName(definition);
      return definition.kind === 'histogram' ? [`${name}_count`, `${name}_bucket`, `${name}_sum`] : [name];
    }),
  );
  const labels = new Set(
    Object.values(DEFINITIONS).flatMap((one) => one.labels.map((label) => label.replaceAll('.', '_'))),
  );
  const conditions = Array.from(
    text.slice(text.indexOf('## What to alert on')).matchAll(/^\| `([^`]+)`/gm),
    ([, condition = '']) => condition,
  );
  expect(conditions.length).toBeGreaterThan(5);
  const named = conditions.flatMap((condition) => condition.match(/\b(?:http|db|gatehouse)_\w+/g) ?? []);
  expect(named.filter((name) => !names.has(name) && !labels.has(name))).toEqual([]);
});
