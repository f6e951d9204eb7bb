import { expect, test } from 'vitest';

import { RevocationMemo } from '../../../../src/services/blacklist/memo';

test('lookups whose requests died are bounded, and a new one takes the place of the dead one', async () => {
  const memo = new RevocationMemo();
  const dead = new Promise<never>(() => undefined);
  for (let n = 0; n < 5_000; n += 1) void memo.track(`session-${n}`, dead, () => 0);
  expect(memo.lookups).toBe(1_000);

  const facts = { epoch: 1, accessVersion: 1, sessionEnded: false, revokedTokens: new Set<string>() };
  expect(await memo.track('session-4999', Promise.resolve(facts), () => 0)).toBe(facts);
  expect(memo.underWay('session-4999')).toBeUndefined();
  expect(memo.get('session-4999', 0)).toBe(facts);
  expect(memo.lookups).toBe(999);
});
