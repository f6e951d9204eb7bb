import { expect, test } from 'vitest';

import page from '../../../docs/configuration.md?raw';
import type { Config } from '../../../src/config/env';
import { policy } from '../../../src/middlewares/policy';

test('the page of settings names, at each limit, the limiters that have its numbers', () => {
  const rows = Array.from(page.matchAll(/^\| `LIMIT_([A-Z_]+)` \|(?:[^|\n]*\|){3} ([^|\n]+) \|$/gm));
  const keyOf = (setting: string) =>
    setting.toLowerCase().replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  // The numbers of each say which setting they are of.
  const limits = Object.fromEntries(
    rows.map(([, setting = ''], index) => [keyOf(setting), { maxRequests: index, windowMs: 1 }]),
  ) as Config['limits'];
  const limiters = Object.values(policy).map(({ name, limit }) => `${rows[limit(limits).maxRequests]?.[1]} ${name}`);
  const shown = rows.flatMap(([, setting = '', names = '']) =>
    Array.from(names.matchAll(/`([a-z-]+)`/g), ([, name]) => `${setting} ${name}`),
  );
  expect(shown.toSorted()).toEqual(limiters.toSorted());
});
