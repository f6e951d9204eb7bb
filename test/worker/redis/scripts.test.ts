import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { RedisBatch } from '../../../src/redis/batch';
import type { Script } from '../../../src/redis/script';
import { blacklistMerge } from '../../../src/redis/scripts/blacklistMerge';
import { cacheFill } from '../../../src/redis/scripts/cacheFill';
import { fencedWrite } from '../../../src/redis/scripts/fencedWrite';
import { lockAcquire } from '../../../src/redis/scripts/lockAcquire';
import { lockExtend } from '../../../src/redis/scripts/lockExtend';
import { lockRelease } from '../../../src/redis/scripts/lockRelease';
import { sessionEnd } from '../../../src/redis/scripts/sessionEnd';
import { sessionRefresh } from '../../../src/redis/scripts/sessionRefresh';
import { sessionSeen } from '../../../src/redis/scripts/sessionSeen';
import { sessionWrite } from '../../../src/redis/scripts/sessionWrite';
import { rateLimit } from '../../../src/redis/scripts/rateLimit';
import { inRequest } from '../support/request';

const DAY = 86_400_000;

/** Runs the body in a request of its own; keys are new for every test. */
function withRedis(body: (batch: RedisBatch) => Promise<void>) {
  return () => inRequest(({ batch }) => body(batch));
}

let n = 0;
let session = '';
let blacklist = '';
beforeEach(() => {
  n += 1;
  session = `scripts:session:{u${n}}.s`;
  blacklist = `scripts:blacklist:{u${n}}`;
});

const keys = () => [session, blacklist];

const write = (
  batch: RedisBatch,
  changes: Partial<{
    gen: number;
    conf: number;
    ep: number;
    role: string;
    userEp: number;
    av: number;
    known: 0 | 1;
    ended: (string | number)[];
  }> = {},
) => {
  const { gen = 1, conf = 0, ep = 1, role = 'user', userEp = 1, av = 1, known = 1, ended = [] } = changes;
  return batch.run(sessionWrite, keys(), [
    'u.s',
    '{"a":1}',
    gen,
    conf,
    ep,
    role,
    userEp,
    av,
    7 * DAY,
    30 * DAY,
    31 * DAY,
    0,
    known,
    '',
    ...ended,
  ]);
};

const refresh = (batch: RedisBatch, gen: number, { ep = 1, graceMs = 30_000, jti = 'same' } = {}) =>
  batch.run(sessionRefresh, keys(), [
    'u.s',
    gen,
    ep,
    graceMs,
    7 * DAY,
    30 * DAY,
    Date.now() + 30 * DAY,
    31 * DAY,
    jti,
    1_800_000_000_001,
  ]);

const end = (batch: RedisBatch) =>
  batch.run(sessionEnd, keys(), ['u.s', 'logout', 30 * DAY, Date.now() + 30 * DAY, 31 * DAY]);

const field = (batch: RedisBatch, name: string) => batch.send('HGET', session, name);

const all: Record<string, Script> = {
  blacklistMerge,
  cacheFill,
  fencedWrite,
  lockAcquire,
  lockExtend,
  lockRelease,
  sessionEnd,
  sessionRefresh,
  sessionSeen,
  sessionWrite,
  rateLimit,
};

test.each(Object.entries(all))('the server computes the same SHA for %s', (_name, script) =>
  inRequest(async ({ batch }) => expect(await batch.send('SCRIPT', 'LOAD', script.text)).toBe(script.sha)),
);

describe('sessionRefresh', () => {
  test(
    'presenting the current generation rotates it',
    withRedis(async (batch) => {
      await write(batch);
      expect(await refresh(batch, 1)).toEqual(['ok', 2, 1, 1, 'user']);
      expect(await refresh(batch, 2)).toEqual(['ok', 3, 1, 1, 'user']);
    }),
  );

  test(
    'a generation that is issued again ends the token that it was issued with, and from then on each rotation the newest',
    withRedis(async (batch) => {
      const denied = async (jti: string) => batch.send('HGET', blacklist, `j:${jti}`);
      await write(batch);
      expect(await refresh(batch, 1, { jti: 'a' })).toEqual(['ok', 2, 1, 1, 'user']);
      // The same call, run a second time, is no second issue.
      expect(await refresh(batch, 1, { jti: 'a' })).toEqual(['ok', 2, 1, 1, 'user']);
      expect(await refresh(batch, 2, { jti: 'b' })).toEqual(['ok', 3, 1, 1, 'user']);
      expect(await refresh(batch, 2, { jti: 'c' })).toEqual(['ok', 3, 1, 1, 'user', 'b']);
      expect([await denied('a'), await denied('b'), await denied('c')]).toEqual([null, '1800000000001', null]);
      expect(await refresh(batch, 3, { jti: 'd' })).toEqual(['ok', 4, 1, 1, 'user', 'c']);
      expect(await refresh(batch, 4, { jti: 'e' })).toEqual(['ok', 5, 1, 1, 'user']);
      expect(await denied('d')).toBeNull();
    }),
  );

  test(
    'the one before gives the same successor while no request has shown it, however late',
    withRedis(async (batch) => {
      await write(batch);
      await refresh(batch, 1);
      for (let i = 0; i < 3; i += 1) expect(await refresh(batch, 1, { graceMs: -1 })).toEqual(['ok', 2, 1, 1, 'user']);
    }),
  );

  test(
    'once the successor was shown, the one before lives through the grace and is then reuse',
    withRedis(async (batch) => {
      await write(batch);
      await refresh(batch, 1);
      await batch.run(sessionSeen, [session], [2, 1]);
      expect(await refresh(batch, 1)).toEqual(['ok', 2, 1, 1, 'user']);
      expect(await refresh(batch, 1, { graceMs: -1 })).toEqual(['reuse']);
      // The whole family is dead, its newest token too; and as long as the database is not known to know, it is told.
      expect(await refresh(batch, 2)).toEqual(['reuse']);
      expect(await batch.send('HGET', blacklist, 's:u.s')).not.toBeNull();
      expect(await write(batch)).toBe(0);
      await end(batch);
      for (const generation of [1, 2]) expect(await refresh(batch, generation)).toEqual(['revoked']);
    }),
  );

  test(
    'two behind is reuse, even within the grace',
    withRedis(async (batch) => {
      await write(batch);
      await refresh(batch, 1);
      await refresh(batch, 2);
      expect(await refresh(batch, 1)).toEqual(['reuse']);
    }),
  );

  test(
    'a generation ahead of the record is adopted: a failover lost its rotation',
    withRedis(async (batch) => {
      await write(batch);
      expect(await refresh(batch, 5)).toEqual(['ok', 6, 1, 1, 'user']);
      expect(await refresh(batch, 1)).toEqual(['reuse']);
    }),
  );

  test(
    'an epoch ahead of the record is adopted: the write of a renewal was lost',
    withRedis(async (batch) => {
      await write(batch);
      await batch.run(blacklistMerge, [blacklist], [31 * DAY, 'ep', 2]);
      expect(await refresh(batch, 3, { ep: 2 })).toEqual(['ok', 4, 2, 1, 'user']);
      expect(await field(batch, 'ep')).toBe('2');
    }),
  );

  test(
    'a renewal goes on from its own generation, however far the old tokens had got, and whether it was written or not',
    withRedis(async (batch) => {
      await write(batch, { gen: 9, conf: 8 });
      await write(batch, { gen: 4, conf: 3, ep: 2, userEp: 2 });
      expect(await refresh(batch, 4, { ep: 2 })).toEqual(['ok', 5, 2, 1, 'user']);
      expect(await refresh(batch, 4, { ep: 2 })).toEqual(['ok', 5, 2, 1, 'user']);
      await batch.send('HSET', session, 'g', 9, 'c', 9);
      expect(await refresh(batch, 6, { ep: 3 })).toEqual(['ok', 7, 3, 1, 'user']);
      expect(await batch.send('HMGET', session, 'g', 'c', 'ep')).toEqual(['7', '6', '3']);
    }),
  );

  test(
    'what Redis has lost is unknown, what it denies is revoked',
    withRedis(async (batch) => {
      expect(await refresh(batch, 1)).toEqual(['unknown']);
      await write(batch);
      await batch.send('UNLINK', blacklist);
      expect(await refresh(batch, 1)).toEqual(['unknown']);
      await end(batch);
      expect(await refresh(batch, 1)).toEqual(['revoked']);
    }),
  );

  test(
    'a token of before a renewal ends nothing, when the renewed session was seen and its renewal is not written yet',
    withRedis(async (batch) => {
      await write(batch);
      await refresh(batch, 1);
      await batch.run(sessionSeen, [session], [1_001, 4]);
      expect(await refresh(batch, 1)).toEqual(['revoked']);
      expect(await refresh(batch, 2)).toEqual(['revoked']);
      expect(await refresh(batch, 1_001, { ep: 4 })).toEqual(['ok', 1_002, 4, 1, 'user']);
    }),
  );

  test(
    'an older epoch is revoked, an older role is stale',
    withRedis(async (batch) => {
      await write(batch);
      await batch.run(blacklistMerge, [blacklist], [31 * DAY, 'av', 2]);
      expect(await refresh(batch, 1)).toEqual(['stale', 2]);
      await write(batch, { role: 'admin', av: 2 });
      expect(await refresh(batch, 1)).toEqual(['ok', 2, 1, 2, 'admin']);
      await batch.run(blacklistMerge, [blacklist], [31 * DAY, 'ep', 2]);
      expect(await refresh(batch, 2)).toEqual(['revoked']);
    }),
  );

  test(
    'a hundred at once get one and the same successor',
    withRedis(async (batch) => {
      await write(batch);
      const answers = await Promise.all(Array.from({ length: 100 }, () => refresh(batch, 1)));
      expect(new Set(answers.map(String))).toEqual(new Set(['ok,2,1,1,user']));
    }),
  );
});

describe('sessionWrite', () => {
  test(
    'never brings back what is denied, dead or outdated',
    withRedis(async (batch) => {
      await end(batch);
      expect(await write(batch)).toBe(0);
      expect(await field(batch, 'g')).toBeNull();
      await batch.send('UNLINK', session);
      expect(await write(batch)).toBe(0);
      await batch.send('UNLINK', blacklist);
      expect(await write(batch, { userEp: 2 })).toBe(0);
      expect(await batch.send('HGET', blacklist, 'ep')).toBe('2');
      expect(await field(batch, 'g')).toBeNull();
    }),
  );

  test(
    'gives a lost hash its epoch only together with all that was denied',
    withRedis(async (batch) => {
      await write(batch, { known: 0 });
      expect(await batch.send('EXISTS', blacklist)).toBe(0);
      await write(batch, { known: 1, ended: ['s:u.other', 123] });
      expect(await batch.send('HMGET', blacklist, 'ep', 's:u.other')).toEqual(['1', '123']);
      await write(batch, { known: 0, userEp: 1, av: 5 });
      expect(await batch.send('HGET', blacklist, 'av')).toBe('5');
    }),
  );

  test(
    'neither goes back a generation nor puts an old role under a new version',
    withRedis(async (batch) => {
      await write(batch, { gen: 4, conf: 3, role: 'admin', av: 3 });
      expect(await write(batch, { gen: 2, conf: 2, role: 'user', av: 2 })).toBe(1);
      expect(await batch.send('HMGET', session, 'g', 'c', 'ro', 'av')).toEqual(['4', '3', 'admin', '3']);
      expect(await batch.send('HMGET', blacklist, 'ep', 'av')).toEqual(['1', '3']);
    }),
  );

  test(
    'every key has a TTL, and none is shortened',
    withRedis(async (batch) => {
      await write(batch);
      await batch.send('PEXPIRE', session, 20 * DAY);
      await batch.send('PEXPIRE', blacklist, 90 * DAY);
      await write(batch);
      await refresh(batch, 1);
      expect(Number(await batch.send('PTTL', session))).toBeGreaterThan(19 * DAY);
      await end(batch);
      expect(Number(await batch.send('PTTL', session))).toBeGreaterThan(29 * DAY);
      expect(Number(await batch.send('PTTL', blacklist))).toBeGreaterThan(89 * DAY);
    }),
  );
});

describe('sessionSeen', () => {
  test(
    'confirms and adopts, and raises no dead or lost session',
    withRedis(async (batch) => {
      expect(await batch.run(sessionSeen, [session], [1, 1])).toBe(0);
      await write(batch);
      expect(await batch.run(sessionSeen, [session], [3, 1])).toBe(1);
      expect(await batch.send('HMGET', session, 'g', 'c')).toEqual(['3', '3']);
      await end(batch);
      expect(await batch.run(sessionSeen, [session], [4, 1])).toBe(0);
      expect(await field(batch, 'g')).toBeNull();
    }),
  );
});

describe('blacklistMerge', () => {
  test(
    'only grows, in any order',
    withRedis(async (batch) => {
      await batch.run(blacklistMerge, [blacklist], [DAY, 'ep', 5, 's:a', 100]);
      await batch.run(blacklistMerge, [blacklist], [DAY, 'ep', 3, 'av', 2, 's:a', 50]);
      expect(await batch.send('HMGET', blacklist, 'ep', 'av', 's:a')).toEqual(['5', '2', '100']);
      await batch.run(blacklistMerge, [blacklist], [1_000, 'ep', 1]);
      expect(Number(await batch.send('PTTL', blacklist))).toBeGreaterThan(DAY - 10_000);
    }),
  );

  test(
    'replies with the versions that count afterwards: the former ones if they are larger, and 0 for one that is unknown',
    withRedis(async (batch) => {
      const merge = (...fields: (string | number)[]) => batch.run(blacklistMerge, [blacklist], [DAY, ...fields]);
      expect(await merge('j:a', 100)).toEqual([0, 0]);
      expect(await merge('least', 5, 'av', 2)).toEqual([5, 2]);
      expect(await merge('least', 3, 'av', 4)).toEqual([5, 4]);
      expect(await merge('ep', 4)).toEqual([5, 4]);
      expect(await merge('ep', 2 ** 52)).toEqual([2 ** 52, 4]);
    }),
  );

  test(
    'prunes what has expired from a large hash, and nothing else; so does the end of a session',
    withRedis(async (batch) => {
      const old = Array.from({ length: 300 }, (_, i) => [`s:old${i}`, Date.now() - DAY]).flat();
      await batch.send('HSET', blacklist, 'ep', 1, 's:live', Date.now() + DAY, ...old);
      await batch.run(blacklistMerge, [blacklist], [DAY, 'av', 1]);
      expect(await batch.send('HLEN', blacklist)).toBe(3);
      expect(await batch.send('HEXISTS', blacklist, 's:live')).toBe(1);
      await batch.send('HSET', blacklist, ...old);
      await end(batch);
      expect(await batch.send('HLEN', blacklist)).toBe(4);
      expect(await batch.send('HMGET', blacklist, 'ep', 's:live', 's:u.s')).not.toContain(null);
    }),
  );
});

describe('locks', () => {
  const lockKeys = () => [`scripts:{lock${n}}`, `scripts:{lock${n}}:fence`];
  const left = (holder: string) => `scripts:{lock${n}}:left:${holder}`;
  const acquire = (batch: RedisBatch, holder: string, leaseMs = 60_000) =>
    batch.run(lockAcquire, [...lockKeys(), left(holder)], [holder, leaseMs, 3_600_000]) as Promise<[number, number]>;
  const release = (batch: RedisBatch, holder: string) =>
    batch.run(lockRelease, [lockKeys()[0]!, left(holder)], [holder, 60_000]);
  const ttl = async (batch: RedisBatch) => Number(await batch.send('PTTL', lockKeys()[0]!));

  test(
    'the same holder gets the same fence again, even when the fence’s key is gone',
    withRedis(async (batch) => {
      const first = await acquire(batch, 'a');
      expect(first[0]).toBe(1);
      expect(await acquire(batch, 'a')).toEqual(first);
      await batch.send('UNLINK', lockKeys()[1]!);
      expect(await acquire(batch, 'a')).toEqual(first);
      expect(await acquire(batch, 'b')).toEqual([0, expect.closeTo(60_000, -3)]);
    }),
  );

  test(
    'a late copy of the first call does not shorten what was extended since',
    withRedis(async (batch) => {
      await acquire(batch, 'a', 1_000);
      expect(await batch.run(lockExtend, [lockKeys()[0]!], ['a', 60_000])).toBe(1);
      await acquire(batch, 'a', 1_000);
      expect(await ttl(batch)).toBeGreaterThan(50_000);
      await batch.run(lockExtend, [lockKeys()[0]!], ['a', 1_000]);
      expect(await ttl(batch)).toBeGreaterThan(50_000);
    }),
  );

  test(
    'a call that arrives after its holder has left takes nothing, whether it held the lock or not',
    withRedis(async (batch) => {
      expect(await release(batch, 'early')).toBe(0);
      expect(await acquire(batch, 'early')).toEqual([0, 0]);
      await acquire(batch, 'a');
      expect(await release(batch, 'a')).toBe(1);
      expect(await acquire(batch, 'a')).toEqual([0, 0]);
      expect((await acquire(batch, 'b'))[0]).toBe(1);
      // However many have come and gone since.
      expect(await release(batch, 'b')).toBe(1);
      for (const gone of ['early', 'a', 'b']) expect(await acquire(batch, gone)).toEqual([0, 0]);
      expect(await batch.send('PTTL', left('a'))).toBeGreaterThan(50_000);
    }),
  );

  test(
    'a holder whose name begins another’s frees and extends nothing',
    withRedis(async (batch) => {
      await acquire(batch, 'ab');
      expect(await release(batch, 'a')).toBe(0);
      expect(await batch.run(lockExtend, [lockKeys()[0]!], ['a', 1])).toBe(0);
      expect(await release(batch, 'ab')).toBe(1);
    }),
  );
});

afterEach(() => inRequest(async ({ batch }) => void (await batch.send('UNLINK', ...keys()))));
