import { expect, test } from 'vitest';

import { timeOrderedIds } from '../../../src/util/timeOrderedId';

test('ids are UUIDs of version 7 that sort in the order in which they were made', () => {
  const nextId = timeOrderedIds();
  // More in one millisecond than its counter holds, and a clock that goes back.
  const times = [...Array.from({ length: 5_000 }, () => 1_800_000_000_000), 1_799_999_999_000, 1_800_000_000_100];
  const ids = times.map((nowMs) => nextId(nowMs));
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids.toSorted()).toEqual(ids);
  for (const id of ids) expect(id).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
  // The first 48 bits are the time, so ids of different isolates sort by it.
  expect(Number.parseInt(ids[0]!.replaceAll('-', '').slice(0, 12), 16)).toBe(1_800_000_000_000);
  expect(timeOrderedIds()(1_800_000_000_001) > ids[0]!).toBe(true);
});
