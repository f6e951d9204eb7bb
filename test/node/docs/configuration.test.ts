import { readFileSync } from 'node:fs';

import { describe, expect, test } from 'vitest';

import { describeSettings } from '../../../src/config/describeSettings';
import { parseConfig } from '../../../src/config/env';
import { CLOCK_TOLERANCE_SECONDS } from '../../../src/services/token/accessToken';

const page = readFileSync(new URL('../../../docs/configuration.md', import.meta.url), 'utf8');

/** The tables' rows by the setting that they describe. A setting may stand in one row only. */
const rows = Array.from(page.matchAll(/^\| `([A-Z0-9_]+)` \| (.*) \|$/gm), ([, name = '', cells = '']) => ({
  name,
  cells: cells.split(' | '),
}));
const settings = describeSettings({});

/** What the settings make of a value; `null` when they refuse it. */
const read = (name: string, value: number) =>
  describeSettings({ [name]: String(value) }).find((setting) => setting.name === name)?.value;

test('every setting has one row, and every row a setting', () => {
  expect(rows.map(({ name }) => name).sort()).toEqual(settings.map(({ name }) => name).sort());
});

test('the leeway of expired tokens is the code’s', () => {
  expect(page).toContain(`accepted for ${CLOCK_TOLERANCE_SECONDS} seconds after it has expired`);
});

test('what it calls required is required, and nothing else is', () => {
  const required = rows.filter(({ cells }) => cells[0] === 'required').map(({ name }) => name);
  expect(() => parseConfig({ DB: {} })).toThrow(/^Configuration missing: [^;]*$/);
  let missing = '';
  try {
    parseConfig({ DB: {} });
  } catch (error) {
    missing = (error as Error).message.replace('Configuration missing: ', '');
  }
  expect(missing.split(', ').sort()).toEqual([...new Set(required)].sort());
});

test.each(rows)('the default of $name', ({ name, cells: [shown] }) => {
  const value = settings.find((setting) => setting.name === name)?.value ?? '';
  // The test above tells `required` from `none`.
  expect(value || 'none').toBe(shown === 'required' ? 'none' : shown);
});

const numbers = rows.filter(({ cells }) => /^\d+$/.test(cells[0] ?? ''));

describe.each(numbers)('the bounds of $name', ({ name, cells: [, minimum = '', maximum = ''] }) => {
  test('are those of the page', () => {
    expect([read(name, Number(minimum)), read(name, Number(minimum) - 1)]).toEqual([minimum, null]);
    const most = maximum === 'none' ? Number.MAX_SAFE_INTEGER : Number(maximum);
    expect(read(name, most)).toBe(String(most));
    expect(read(name, most + 1)).toBeNull();
  });
});
