import { describe, expect, test } from 'vitest';

import { RedisReplyError } from '../../../../src/redis/errors';
import type { Command, RedisClient } from '../../../../src/redis/client';
import { createRedisClient } from '../../../../src/redis/client';
import { configOf } from '../../../../src/config/env';
import { RateLimitService, slidingWindow } from '../../../../src/services/rateLimit.service';
import type { RateLimitPolicy } from '../../../../src/services/rateLimit.service';
import { bindings, inRequest, isolateFor } from '../../support/request';

/** The engine, which refuses keys of several hash tags in one command where it acts as a cluster. */
function engine(kind: 'one node' | 'slots') {
  const { url, token } = configOf(bindings()).redis;
  const real = createRedisClient({ url, token });
  const sent: Command[][] = [];
  const tags = ([, , count = 0, ...rest]: Command) =>
    new Set(rest.slice(0, Number(count)).map((key) => /\{[^}]+\}/.exec(String(key))?.[0]));
  const client: RedisClient = {
    async execute(commands) {
      sent.push([...commands]);
      const apart = (command: Command) => kind === 'slots' && command[0].startsWith('EVAL') && tags(command).size > 1;
      const replies = await real.execute(commands.map((command) => (apart(command) ? ['PING'] : command)));
      return replies.map((reply, index) =>
        apart(commands[index]!) ? { error: new RedisReplyError('CROSSSLOT') } : reply,
      );
    },
  };
  return { client, sent };
}

let n = 0;
const policies = (account: number, address: number): [RateLimitPolicy, RateLimitPolicy] => {
  n += 1;
  return [
    { name: `together-account-${n}-${Math.random()}`, limits: [slidingWindow(account, 600_000)] },
    { name: `together-address-${n}-${Math.random()}`, limits: [slidingWindow(address, 600_000)] },
  ];
};

describe.each(['one node', 'slots'] as const)('two limits on different identities, on %s', (kind) => {
  function stage([account, address]: [RateLimitPolicy, RateLimitPolicy]) {
    const { client, sent } = engine(kind);
    const isolate = isolateFor(undefined, { client });
    const login = (of: string) =>
      inRequest(
        async ({ batch }) => {
          batch.setDeadline(30_000);
          const decisions = await RateLimitService.consumeAll([
            { policy: account, identity: `account:${of}` },
            { policy: address, identity: 'address:nat' },
          ]);
          return decisions.map((decision) => (decision.allowed ? 'admitted' : decision.reason));
        },
        { isolate },
      );
    const left = (policy: RateLimitPolicy, identity: string) =>
      inRequest(async () => (await RateLimitService.peek(policy, identity))[0]?.remaining, { isolate });
    return { login, left, sent, isolate };
  }

  test('60 at once on one account leave the neighbour’s address alone', async () => {
    const [account, address] = policies(5, 50);
    const { login, left, isolate } = stage([account, address]);
    // The topology is known, and the scripts are there.
    await login('warm');
    const burst = Array.from({ length: 60 }, () => login('busy'));
    const neighbour = login('neighbour');
    const outcomes = await Promise.all(burst);
    expect(await neighbour).toEqual(['admitted', 'admitted']);
    // The isolate remembers no refusal of the address either.
    const known = () => RateLimitService.block(address, 'address:nat');
    expect(await inRequest(async () => known(), { isolate })).toBeUndefined();
    expect(outcomes.filter(([first]) => first === 'admitted')).toHaveLength(5);
    expect(outcomes.filter(([first]) => first === 'limit')).toHaveLength(55);
    expect(await left(account, 'account:busy')).toBe(0);
    expect(await left(address, 'address:nat')).toBe(50 - 1 - 5 - 1);
  });

  test('a request that the second refuses is not charged to the first', async () => {
    const [account, address] = policies(10, 2);
    const { login, left } = stage([account, address]);
    for (let i = 0; i < 2; i += 1) expect(await login('a')).toEqual(['admitted', 'admitted']);
    for (let i = 0; i < 3; i += 1) expect(await login('b')).toEqual(['together', 'limit']);
    expect(await left(account, 'account:a')).toBe(8);
    expect(await left(account, 'account:b')).toBe(10);
  });

  test('never more than the limit, however many ask at once', async () => {
    const [account, address] = policies(3, 20);
    const { login, left } = stage([account, address]);
    await login('warm');
    const outcomes = await Promise.all(Array.from({ length: 80 }, (_, index) => login(`user-${index % 8}`)));
    // Eight accounts, three each: more than the address has left.
    expect(outcomes.filter(([first]) => first === 'admitted')).toHaveLength(19);
    expect(await left(address, 'address:nat')).toBe(0);
  });

  test('one call on one node; one call a slot on a cluster, in one pipeline, settled beside the request', async () => {
    const { login, sent } = stage(policies(5, 50));
    await login('a');
    await login('a');
    sent.length = 0;
    await login('a');
    const calls = sent.map((commands) => commands.map(([name]) => name));
    if (kind === 'one node') expect(calls).toEqual([['EVALSHA']]);
    else {
      expect(calls[0]).toEqual(['EVALSHA', 'EVALSHA']);
      expect(calls.slice(1)).toEqual([['EVALSHA'], ['EVALSHA']]);
    }
  });
});

test('a reservation whose isolate is gone counts once it can no longer be taken back', async () => {
  const [account, address] = policies(5, 1);
  const { client, sent } = engine('slots');
  let isLost = false;
  const lossy: RedisClient = {
    async execute(commands) {
      // The confirmation is never sent.
      if (isLost && commands.length === 1) return new Promise(() => undefined);
      return client.execute(commands);
    },
  };
  const isolate = isolateFor(undefined, { client });
  const login = (of: string, from = isolate) =>
    inRequest(
      async ({ batch }) => {
        batch.setDeadline(30_000);
        return RateLimitService.consumeAll([
          { policy: account, identity: `account:${of}` },
          { policy: address, identity: 'address:one' },
        ]);
      },
      { isolate: from },
    );
  const gone = isolateFor(bindings({ REDIS_CALL_TIMEOUT_MS: '50' }), { client: lossy });
  gone.localLimiter.crossSlot = true;
  isLost = true;
  expect((await login('a', gone)).every(({ allowed }) => allowed)).toBe(true);
  // It asks again for as long as it may. Then it is refused until the reservation is final: never admitted.
  sent.length = 0;
  const [first, second] = await login('b');
  expect(first).toMatchObject({ allowed: false, reason: 'together' });
  expect(second).toMatchObject({ allowed: false, reason: 'limit', retryAfterMs: 2_000 });
  // Seven times after the first, about the address alone.
  const asked = Map.groupBy(sent.flat(), ([, , , key]) => String(key).includes('-address-'));
  expect(asked.get(true)).toHaveLength(1 + 7);
});
