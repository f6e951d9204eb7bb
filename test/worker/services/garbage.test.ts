import { env } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';

import type { RedisValue } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { sessionRefresh } from '../../../src/redis/scripts/sessionRefresh';
import { createSessionRecords } from '../../../src/services/session/record';
import { LockService } from '../../../src/services/lock.service';
import { RedisService } from '../../../src/services/redis.service';
import { SessionService } from '../../../src/services/session.service';
import { cacheScene, freshNamespace } from '../support/cache';

/** What a proxy, or a server of another kind, says to anything. */
const ANYTHING: RedisValue[] = [
  0,
  -1,
  2.5,
  '',
  '0',
  '<html>',
  'OK!',
  [],
  [null],
  [[]],
  ['<html>', 'a', 'b', 'c'],
  [1, 1, 1],
];

const scene = cacheScene();
const garbled = async <T>(reply: RedisValue, work: () => Promise<T>): Promise<T> => {
  scene.state.rewrite = (replies) => replies.map(() => ({ value: reply }));
  try {
    return await scene.run(work);
  } finally {
    scene.state.rewrite = undefined;
  }
};

describe('a reply of the wrong shape is no response', () => {
  test.each(ANYTHING.map((reply) => [JSON.stringify(reply), reply] as const))(
    'to a plain key: %s',
    async (_, reply) => {
      const strict = { whenUnavailable: 'throw' } as const;
      if (typeof reply !== 'string') {
        await expect(garbled(reply, () => RedisService.get('g', 'k', strict))).rejects.toThrow(RedisUnavailable);
        expect(await garbled(reply, () => RedisService.get('g', 'k'))).toBeNull();
      }
      await expect(garbled(reply, () => RedisService.set('g', 'k', 'v', 60, strict))).rejects.toThrow(RedisUnavailable);
      expect(await garbled(reply, () => RedisService.set('g', 'k', 'v', 60))).toBe(false);
      expect(await garbled(reply, () => RedisService.delete('g', 'k'))).toBe(false);
      if (reply !== 0) {
        await expect(garbled(reply, () => RedisService.delete('g', 'k', strict))).rejects.toThrow(RedisUnavailable);
      }
    },
  );

  test.each(
    [...ANYTHING, [1, 0], [1, '1'], [1], [1, 1e15, 1], [1, 2.5]].map(
      (reply) => [JSON.stringify(reply), reply] as const,
    ),
  )('to a lock: %s', async (_, reply) => {
    const name = freshNamespace();
    expect(await garbled(reply, () => LockService.acquire(name, { leaseMs: 5_000 }))).toMatchObject({
      acquired: false,
      reason: 'unavailable',
    });
  });

  test.each(ANYTHING.filter((reply) => reply !== 0).map((reply) => [JSON.stringify(reply), reply] as const))(
    'to who holds a lock: %s',
    async (_, reply) => {
      await scene.run(async () => {
        const lock = await LockService.acquire(freshNamespace(), { leaseMs: 5_000 });
        if (!lock.acquired) throw new Error('not acquired');
        scene.state.rewrite = (replies) => replies.map(() => ({ value: reply }));
        expect(await lock.extend()).toBe('unavailable');
        expect(await lock.release()).toBe('unavailable');
        scene.state.rewrite = undefined;
      });
    },
  );

  test.each(ANYTHING.map((reply) => [JSON.stringify(reply), reply] as const))('to a session: %s', async (_, reply) => {
    const userId = freshNamespace().replace('.', '');
    const id = `${userId}.0`;
    const data = { userId, theme: 'dark' };
    await scene.run(async () => SessionService.createSession(id, data));
    expect(await garbled(reply, () => SessionService.getSession(id))).toEqual(data);
    expect(await scene.run(async () => SessionService.getSession(id))).toEqual(data);
    await env.DB.prepare('update sessions set ended_at_ms = 1 where id = ?').bind(id).run();
    expect(await garbled(reply, () => SessionService.getSession(id))).toBeNull();
  });

  test('to a refresh', async () => {
    const garbage: RedisValue[] = [
      ...ANYTHING,
      ['ok'],
      ['ok', 2, 1, 1],
      ['ok', 2, 1, 1, 'root'],
      ['ok', '2', '1', '1', 'user'],
      ['ok', 'x', 1, 1, 'user'],
      ['ok', 2, 0, 1, 'user'],
      ['ok', 2, 1, 1.5, 'user'],
      ['ok', 2, 1, 1, 'user', 1],
      ['revoked', 1],
      ['reuse', null],
      'revoked',
      ['ok', 2, 1, 1, 'user', 7],
      ['ok', 2, 1, 1, 'user', ''],
      ['ok', 2, 1, 1, 'user', 'a b'],
      ['ok', 2, 1, 1, 'user', 'jti', 'x'],
    ];
    const { config, keys } = scene.isolate;
    const grant = { sessionId: 'u.s', generation: 1, epoch: 1, expiresAtMs: scene.clock.ms + 60_000 };
    const replyWith = (reply: RedisValue) =>
      createSessionRecords({
        batch: { run: async (script: unknown) => (script === sessionRefresh ? reply : null) } as never,
        config,
        keys,
        now: () => scene.clock.ms,
      }).refresh(grant, 'jti');
    for (const reply of garbage) expect({ reply, ...(await replyWith(reply)) }).toEqual({ reply, status: 'unknown' });
    expect(await replyWith(['ok', 2, 1, 1, 'user'])).toMatchObject({ status: 'ok', generation: 2 });
    expect(await replyWith(['revoked'])).toEqual({ status: 'revoked' });
  });
});
