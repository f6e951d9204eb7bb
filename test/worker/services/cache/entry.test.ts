import { expect, test } from 'vitest';

import { encodeEntry, readSnapshot, tombstone } from '../../../../src/services/cache/entry';
import type { RedisValue } from '../../../../src/redis/client';

const key = { entryKey: 'k', canonical: 'c', tagVersionKeys: ['n1', 'n2'] };
const entry = {
  json: '{"a":1}',
  createdAtMs: 1_000,
  softExpiryMs: 2_000,
  hardExpiryMs: 3_000,
  costMs: 5,
  negative: false,
};
const stored = encodeEntry(key, ['x', 'y'], entry);

test('an entry is read as it was stored, while its tag versions are current and its life is not over', () => {
  expect(readSnapshot(key, stored, ['x', 'y'], 2_500)).toEqual({
    entry,
    writeId: stored.slice(0, 16),
    tagVersions: ['x', 'y'],
  });
  expect(readSnapshot(key, stored, ['x', 'z'], 2_500).entry).toBeUndefined();
  expect(readSnapshot(key, stored, ['x', null], 2_500)).toMatchObject({ entry: undefined, tagVersions: ['x', null] });
  expect(readSnapshot(key, stored, ['x', 'y'], 3_000).entry).toBeUndefined();
  expect(readSnapshot({ ...key, canonical: 'd' }, stored, ['x', 'y'], 2_500).entry).toBeUndefined();
});

test('a tombstone is a miss with a write id of its own', () => {
  const text = tombstone();
  expect(readSnapshot(key, text, ['x', 'y'], 0)).toEqual({
    entry: undefined,
    writeId: text.slice(0, 16),
    tagVersions: ['x', 'y'],
  });
});

test('every other text and type is a miss, and none throws', () => {
  const replies: RedisValue[] = [null, 7, [], ['x'], '', 'T', stored.slice(1), ` ${stored}`];
  const header = JSON.parse(stored.slice(16, stored.indexOf('\n'))) as unknown[];
  const withHeader = (changed: unknown) => `${stored.slice(0, 16)}${JSON.stringify(changed)}\n{}`;
  // Each part of the header replaced by what it must not be.
  for (const [index] of header.slice(0, 7).entries()) {
    for (const value of [null, -1, 'g1', {}, [], '9e99']) replies.push(withHeader(header.with(index, value)));
  }
  for (let at = 16; at < stored.indexOf('\n'); at += 1)
    replies.push(stored.slice(0, at), stored.slice(0, at) + stored.slice(at + 1));
  for (const reply of replies) {
    const { entry: read } = readSnapshot(key, reply, ['x', 'y'], 2_500);
    // A digit less may be a time like any other; the value and what it depends on are the same.
    if (read !== undefined) expect(read).toMatchObject({ json: '{"a":1}', negative: false });
  }
  for (const reply of replies.slice(0, 8)) expect(readSnapshot(key, reply, ['x', 'y'], 2_500).writeId).toBe('');
});
