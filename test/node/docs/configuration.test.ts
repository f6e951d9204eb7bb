import { readFileSync } from 'node:fs';

import { describe, expect, test } from 'vitest';

import { describeSettings } from '../../../src/config/describeSettings';
import { parseConfig } from '../../../src/config/env';
import { CLOCK_TOLERANCE_SECONDS } from '../../../src/services/token/accessToken';
import { pages } from './pages.ts';

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

test('the settings that it calls required are required, and no others', () => {
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
  // The test above distinguishes `required` from `none`.
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

const UNIT_SECONDS: Readonly<Record<string, number>> = {
  ms: 0.001,
  second: 1,
  s: 1,
  minute: 60,
  hour: 3_600,
  day: 86_400,
};

/** `7 days`, `an hour`, `200 ms`: in the unit of a setting's name. A bare number is in that unit already. */
function durationOf(setting: string, number: string, unit: string): string {
  const amount = number.startsWith('a') ? 1 : Number(number.replaceAll(',', ''));
  if (unit === '') return String(amount);
  const seconds = amount * UNIT_SECONDS[unit.replace(/(?<=..)s$/, '')]!;
  return String(setting.endsWith('_MS') ? seconds * 1_000 : seconds);
}

/** `5 in 15 minutes`, `30 a day`: as the setting writes it. */
const limitOf = (requests: string, window: string, unit: string) => `${requests}/${window || '1'}${unit[0]}`;

/** Defaults that pages name beside a setting, as in `REFRESH_IDLE_TTL_SECONDS` (7 days). */
const named = pages
  .filter(({ name }) => name !== 'docs/configuration.md')
  .flatMap(({ name: file, text }) =>
    settings.flatMap(({ name, value }) => {
      const before = String.raw`\`${name}\`(?: \(|, | \| )`;
      const durations = text.matchAll(
        new RegExp(
          String.raw`${before}(an?|\d[\d,]*)(?: (ms|s|seconds?|minutes?|hours?|days?))?(?=[),;]| \||\. )`,
          'g',
        ),
      );
      const limits = text.matchAll(
        new RegExp(String.raw`${before}(\d+) (?:an?|in (\d+)) (minute|hour|day)s?(?=[),;]| \||\. )`, 'g'),
      );
      return [
        ...Array.from(durations, ([, number = '', unit = '']) => durationOf(name, number, unit)),
        ...Array.from(limits, ([, requests = '', window = '', unit = '']) => limitOf(requests, window, unit)),
      ].map((shown) => ({ file, name, shown, value }));
    }),
  );

test('other pages name the same defaults', () => {
  expect(named.filter(({ shown, value }) => shown !== value)).toEqual([]);
});

test('defaults beside the names of settings are found', () => {
  const found = named.map(({ file, name }) => `${file} ${name}`);
  expect(found).toEqual(
    expect.arrayContaining([
      'docs/accounts.md EMAIL_UNDO_TTL_SECONDS',
      'docs/accounts.md LIMIT_LOGIN',
      'docs/accounts.md LIMIT_REGISTER_DAY',
      'docs/data.md REFRESH_GRACE_SECONDS',
      'docs/outages.md REDIS_GUARD_DEADLINE_MS',
      'docs/rate-limits.md LIMIT_OVERRIDES_SECONDS',
    ]),
  );
});
