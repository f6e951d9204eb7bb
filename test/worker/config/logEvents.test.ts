import { expect, test } from 'vitest';

import page from '../../../docs/logs.md?raw';

const sources = import.meta.glob<string>('../../../src/**/*.ts', { query: '?raw', import: 'default', eager: true });

const APART = /\/src\/(?:gateway|scripts|client|console)\//;
const EVENT = /\blog\(\s*[^,;]+?,\s*'([a-z_]+\.[a-z_]+)'/g;
/** Of lines whose event is a variable. */
const NAMED = /'((?:request|audit)\.[a-z_]+)'/g;

test('docs/logs.md lists every event of the Worker, and no other', () => {
  const written = new Set<string>();
  for (const [file, text] of Object.entries(sources)) {
    if (APART.test(file)) continue;
    for (const pattern of [EVENT, NAMED]) for (const [, event = ''] of text.matchAll(pattern)) written.add(event);
  }
  const listed = new Set([...page.matchAll(/^\| `([a-z_]+\.[a-z_]+)` \|/gm)].map(([, event = '']) => event));
  // A kind of event that is made of a variable.
  listed.delete('audit.refresh_reuse');
  expect(written.size).toBeGreaterThan(40);
  expect([...listed].toSorted()).toEqual([...written].toSorted());
});

/** A call: level, event, and the rest up to its end. */
const CALL = /\blog\(\s*[^,;]+?,\s*'([a-z_]+\.[a-z_]+)'(?:,\s*([^;]*?))?\);/g;

/** Names of an object literal's fields, and `error` for those of an error. */
function fieldsOf(args: string): string[] {
  // Without what stands in calls, templates and arrays.
  let plain = args;
  for (const nested of [/`[^`]*`/g, /\((?:[^()]|\([^()]*\))*\)/g, /\[[^[\]]*\]/g]) plain = plain.replace(nested, '');
  const own =
    /^\{(.*)\}/s
      .exec(plain)?.[1]
      ?.split(',')
      .map((field) => /^\s*(\w+)\s*(?::|$)/.exec(field)?.[1]) ?? [];
  return [...own, args.includes('describeError(') ? 'error' : undefined].filter((name) => name !== undefined);
}

test('and each with its fields', () => {
  const rows = new Map(
    [...page.matchAll(/^\| `([a-z_]+\.[a-z_]+)` \| \w+ \| ([^|]*) \|/gm)].map(([, event = '', fields = '']) => [
      event,
      fields.split(/, | or /).map((field) => field.trim()),
    ]),
  );
  const missing: string[] = [];
  let calls = 0;
  for (const [file, text] of Object.entries(sources)) {
    if (APART.test(file)) continue;
    for (const [, event = '', args = ''] of text.matchAll(CALL)) {
      calls += 1;
      for (const field of fieldsOf(args))
        if (rows.get(event)?.includes(field) !== true) missing.push(`${event}: ${field}`);
    }
  }
  expect(calls).toBeGreaterThan(45);
  expect(missing).toEqual([]);
});
