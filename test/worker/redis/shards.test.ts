import { describe, expect, test } from 'vitest';

import { createRedisBatch } from '../../../src/redis/batch';
import { createBreaker } from '../../../src/redis/breaker';
import type { Command, RedisClient, Reply } from '../../../src/redis/client';
import { replyError } from '../../../src/redis/replyError';
import { createShards, ungated } from '../../../src/redis/shards';
import { hashTagOf, keysOf, slotOf } from '../../../src/redis/slots';

const UNAVAILABLE = 'UNAVAILABLE Redis is not available: connect ECONNREFUSED';

/** Three shards: slots 0 to 5460, 5461 to 10922, and the rest. */
const SLOTS = [
  [0, 5460, ['127.0.0.1', 7001, 'a']],
  [5461, 10922, ['127.0.0.1', 7002, 'b']],
  [10923, 16383, ['127.0.0.1', 7003, 'c']],
];
const shardAt = (key: string) => Math.min(2, Math.floor(slotOf(key) / 5461));
/** Keys of each shard. */
const KEYS = [0, 1, 2].map((shard) =>
  Array.from({ length: 400 }, (_, index) => `k${index}`).filter((key) => shardAt(key) === shard),
);
const [A, B, C] = KEYS as [string[], string[], string[]];

/** An isolate's way to a fake server, whose clock and errors the test sets. */
function isolate(kind: 'cluster' | 'single' | 'silent cluster') {
  const clock = { ms: 1_000_000 };
  const world: { errorOf: (command: Command) => string | undefined; sent: Command[][] } = {
    errorOf: () => undefined,
    sent: [],
  };
  const client: RedisClient = {
    async execute(commands) {
      if (commands[0]?.[0] === 'CLUSTER') {
        return [
          kind === 'cluster'
            ? { value: SLOTS }
            : { error: replyError('ERR This instance has cluster support disabled') },
        ];
      }
      world.sent.push([...commands]);
      return commands.map((command): Reply => {
        const text = world.errorOf(command);
        return text === undefined ? { value: 'OK' } : { error: replyError(text) };
      });
    },
  };
  const times = { probeMs: 1_000, probeMaxMs: 30_000, now: () => clock.ms, random: () => 0.5 };
  const breaker = createBreaker({ windowMs: 10_000, minCalls: 10, failureRatio: 0.5, ...times });
  const shards = createShards({ client, ...times });
  const pending: Promise<unknown>[] = [];
  const open = (gated = true) =>
    createRedisBatch({
      client,
      breaker,
      shards: gated ? shards : ungated(shards),
      waitUntil: (promise) => void pending.push(promise),
      deadlineMs: 200,
      callTimeoutMs: 2_000,
      now: () => clock.ms,
    });
  /** One request's commands, in one pipeline. @returns the values, or reasons for having none */
  const ask = async (...commands: Command[]): Promise<unknown[]> => {
    const batch = open();
    const outcomes = await Promise.allSettled(commands.map((command) => batch.send(...command)));
    while (pending.length > 0) await pending.pop();
    return outcomes.map((outcome) =>
      outcome.status === 'fulfilled' ? outcome.value : (outcome.reason as { reason?: string; code?: string }).reason,
    );
  };
  return { clock, world, breaker, shards, ask };
}

const get = (key: string | undefined): Command => ['GET', key ?? ''];
const set = (key: string | undefined): Command => ['SET', key ?? '', 1];

describe('a single server', () => {
  test.each(['READONLY x', 'LOADING x', 'OOM x', 'MISCONF x', 'MASTERDOWN x', 'NOREPLICAS x', 'BUSY x'])(
    '%s discredits all that it said, and counts against it',
    async (text) => {
      const { world, ask, breaker } = isolate('single');
      world.errorOf = ([name]) => (name === 'SET' ? text : undefined);
      for (let call = 0; call < 10; call += 1) {
        expect(breaker.state).toBe('closed');
        expect(await ask(get(A[0]), set(B[0]))).toEqual(['state', 'state']);
      }
      expect(breaker.state).toBe('open');
    },
  );

  test('a connection lost within a pipeline: the replies before are good', async () => {
    const { world, ask, breaker } = isolate('single');
    world.errorOf = ([, key]) => (key === B[0] ? UNAVAILABLE : undefined);
    expect(await ask(get(A[0]), get(B[0]))).toEqual(['OK', 'shard']);
    expect(breaker.state).toBe('closed');
  });

  test('nothing usable counts against it', async () => {
    const { world, ask, breaker } = isolate('single');
    world.errorOf = () => UNAVAILABLE;
    for (let call = 0; call < 10; call += 1) await ask(get(A[call]), get(B[call]));
    expect(breaker.state).toBe('open');
  });

  test('errors of commands count for it, however many', async () => {
    const { world, ask, breaker } = isolate('single');
    world.errorOf = () => 'WRONGTYPE x';
    for (let call = 0; call < 50; call += 1) await ask(get(A[0]));
    expect(breaker.state).toBe('closed');
  });
});

describe('a cluster', () => {
  test.each([UNAVAILABLE, 'CLUSTERDOWN Hash slot not served', 'LOADING x', 'OOM x', 'READONLY x'])(
    '%s of one shard concerns that shard alone',
    async (text) => {
      const { world, ask, breaker, shards } = isolate('cluster');
      world.errorOf = ([, key]) => (shardAt(String(key)) === 0 ? text : undefined);
      // It has yet to learn that this is a cluster.
      await ask(get(A[0]), get(B[0]));
      for (let call = 0; call < 50; call += 1) expect(await ask(get(B[call]), get(C[call]))).toEqual(['OK', 'OK']);
      expect(await ask(get(B[1]), get(A[1]))).toEqual(['OK', 'breaker']);
      expect(breaker.state).toBe('closed');
      expect(shards.outCount).toBe(1);
    },
  );

  test('after the first failure no call goes to that shard, and none at all for it alone', async () => {
    const { world, ask } = isolate('cluster');
    world.errorOf = ([, key]) => (shardAt(String(key)) === 0 ? UNAVAILABLE : undefined);
    await ask(get(A[0]), get(B[0]));
    world.sent.length = 0;
    for (const key of A.slice(1, 40)) expect(await ask(get(key), set(key))).toEqual(['breaker', 'breaker']);
    expect(world.sent).toEqual([]);
    expect(await ask(get(A[1]), get(B[1]))).toEqual(['breaker', 'OK']);
    expect(world.sent).toEqual([[get(B[1])]]);
  });

  test('calls for the dead shard alone, begun before it was noticed, do not open the breaker', async () => {
    const { world, ask, breaker } = isolate('cluster');
    world.errorOf = ([, key]) => (shardAt(String(key)) === 0 ? UNAVAILABLE : undefined);
    await Promise.all(A.slice(0, 60).map((key) => ask(get(key), set(key))));
    expect(breaker.state).toBe('closed');
    expect(await ask(get(B[0]))).toEqual(['OK']);
  });

  test('a server that refuses writes is not believed about its data either', async () => {
    const { world, ask } = isolate('cluster');
    world.errorOf = ([name, key]) => (shardAt(String(key)) === 0 && name === 'SET' ? 'OOM x' : undefined);
    await ask(set(A[0]));
    expect(await ask(get(A[1]), get(B[0]))).toEqual(['breaker', 'OK']);
  });

  test('within a pipeline it discredits its own shard, and no other', async () => {
    const { world, ask, breaker } = isolate('cluster');
    // It learns that this is a cluster, and no shard goes out.
    world.errorOf = ([, key]) => (key === C[0] ? 'TRYAGAIN x' : undefined);
    await ask(get(C[0]));
    world.errorOf = ([name]) => (name === 'SET' ? 'OOM x' : undefined);
    expect(await ask(get(A[1]), set(A[0]), get(B[0]))).toEqual(['state', 'state', 'OK']);
    expect(breaker.state).toBe('closed');
  });

  test('with every shard dead the breaker opens', async () => {
    const { world, ask, breaker, shards } = isolate('cluster');
    world.errorOf = ([, key]) => (shardAt(String(key)) === 0 ? UNAVAILABLE : undefined);
    await ask(get(A[0]), get(B[0]));
    world.errorOf = () => UNAVAILABLE;
    await Promise.all([B, C].flatMap((keys) => keys.slice(0, 20).map((key) => ask(get(key)))));
    expect(shards.outCount).toBe(3);
    expect(breaker.state).toBe('open');
  });

  test('a slot that is being moved takes nothing else with it', async () => {
    const { world, ask, shards } = isolate('cluster');
    world.errorOf = ([, key]) => (key === A[0] ? 'TRYAGAIN x' : undefined);
    expect(await ask(get(A[0]), get(A[1]))).toEqual(['shard', 'OK']);
    expect(await ask(get(A[0]), get(A[1]))).toEqual(['shard', 'OK']);
    expect(shards.outCount).toBe(0);
  });

  test('a cluster that does not list its shards: each slot for itself', async () => {
    const { world, ask, breaker } = isolate('silent cluster');
    world.errorOf = ([, key]) => (shardAt(String(key)) === 0 ? UNAVAILABLE : undefined);
    expect(await ask(get(A[0]), get(B[0]))).toEqual(['shard', 'OK']);
    expect(await ask(get(A[0]), get(B[0]))).toEqual(['breaker', 'OK']);
    expect(await ask(get(A[1]), get(B[0]))).toEqual(['shard', 'OK']);
    expect(breaker.state).toBe('closed');
  });

  test('a shard is tried by one at a time, ever more rarely, until calls have succeeded', async () => {
    const { world, ask, shards, clock } = isolate('cluster');
    const dead = ([, key]: Command) => (shardAt(String(key)) === 0 ? UNAVAILABLE : undefined);
    world.errorOf = dead;
    await ask(get(A[0]), get(B[0]));
    /** @returns how long it took until the shard was due */
    const due = () => {
      const startMs = clock.ms;
      let probe = shards.takeProbe();
      while (probe === undefined) {
        clock.ms += 100;
        probe = shards.takeProbe();
      }
      expect(shards.takeProbe()).toBeUndefined();
      return { probe, ms: clock.ms - startMs };
    };
    let { probe, ms } = due();
    expect([probe.key, ms]).toEqual([A[0], 1_000]);
    probe.report('away');
    ({ probe, ms } = due());
    expect(ms).toBe(2_000);
    // The probe succeeds, and the next call fails again.
    probe.report('back');
    expect(await ask(get(A[2]))).toEqual(['shard']);
    ({ probe, ms } = due());
    expect(ms).toBe(4_000);
    probe.report('back');
    world.errorOf = () => undefined;
    for (const key of A.slice(0, 10)) expect(await ask(get(key))).toEqual(['OK']);
    world.errorOf = dead;
    await ask(get(A[0]));
    expect(due().ms).toBe(1_000);
  });
});

describe('slots', () => {
  // The values of `CLUSTER KEYSLOT`, and of the specification's example.
  test.each([
    ['123456789', 12_739],
    ['{user1000}.following', 3_443],
    ['{user1000}.followers', 3_443],
    ['foo{}{bar}', 8_363],
    ['foo{{bar}}zap', 4_015],
    ['größe', 9_425],
  ])('%s', (key, slot) => expect(slotOf(key)).toBe(slot));

  test('a key of the tag is in the slot of the key', () => {
    for (const key of ['a', '{b}c', 'x{y}{z}', '{', 'a{b']) {
      expect(slotOf(`probe:{${hashTagOf(key)}}`)).toBe(slotOf(key));
    }
  });

  test('keys of commands', () => {
    expect(keysOf(['PING'])).toEqual([]);
    expect(keysOf(['HMGET', 'k', 'a', 'b'])).toEqual(['k']);
    expect(keysOf(['MGET', 'a', 'b'])).toEqual(['a', 'b']);
    expect(keysOf(['EVALSHA', 'sha', 2, 'a', 'b', 'c'])).toEqual(['a', 'b']);
    expect(keysOf(['EVAL', 'return 1', 0, 'x'])).toEqual([]);
  });
});
