import { sql } from 'drizzle-orm';
import { describe, expect, test, vi } from 'vitest';

import { users } from '../../../../src/db/schema';
import type { Command } from '../../../../src/redis/client';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { CacheService } from '../../../../src/services/cache.service';
import { RedisService } from '../../../../src/services/redis.service';
import { cacheScene, freshNamespace, gate } from '../../support/cache';
import type { Scene } from '../../support/cache';
import { bindings } from '../../support/request';

const unasked = () => Promise.reject(new Error('the loader was asked'));

const cachedIn = async (scene: Scene, namespace: string, args: unknown = 1) => {
  const given = { namespace, args, tags: [`tag ${namespace}`], user: `user-${namespace}`, ttlSeconds: 600 };
  await scene.query(given, async () => 'old');
  expect(await scene.query(given, unasked)).toBe('old');
  return given;
};

describe('invalidate', () => {
  test('is one round trip for keys, namespaces, tags and users together', async () => {
    const scene = cacheScene();
    const given = await Promise.all(Array.from({ length: 4 }, () => cachedIn(scene, freshNamespace())));
    const [a, b, c, d] = given as [(typeof given)[0], (typeof given)[0], (typeof given)[0], (typeof given)[0]];
    scene.state.sent = [];
    const change = { namespaces: [b.namespace], tags: c.tags, users: [d.user] };
    expect(await scene.run(async () => CacheService.invalidate({ keys: [CacheService.keyOf(a)], ...change }))).toEqual({
      pending: false,
    });
    expect(scene.state.sent.map((commands) => commands.length)).toEqual([4]);
    for (const one of given) expect(await scene.query(one, async () => 'new')).toBe('new');
  });

  test('that cannot be delivered to Redis is in the outbox, without the arguments of its keys, and ends the entry later', async () => {
    const scene = cacheScene();
    const given = await cachedIn(scene, freshNamespace(), { email: 'somebody@example.com' });
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    scene.state.before = (commands) =>
      commands.some(([name]) => name === 'SET') ? Promise.reject(new RedisUnavailable('refused')) : undefined;
    const key = await scene.run(async () => {
      const named = CacheService.keyOf(given);
      expect(await CacheService.invalidate({ keys: [named] })).toEqual({ pending: true });
      return named;
    });
    log.mockRestore();
    const { results } = await bindings()
      .DB.prepare('SELECT message FROM outbox WHERE instr(message, ?) > 0')
      .bind(key.entryKey)
      .all();
    expect(results).toEqual([{ message: JSON.stringify({ kind: 'invalidate', keys: [{ entryKey: key.entryKey }] }) }]);
    expect(await scene.query(given, unasked)).toBe('old');
    scene.state.before = undefined;
    scene.clock.ms += 10_000;
    await scene.run(async ({ services }) => services.outbox.deliverDue());
    expect(await scene.query(given, async () => 'new')).toBe('new');
  });

  test('answered by something that says yes to everything is pending', async () => {
    const scene = cacheScene();
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    scene.state.rewrite = (replies) => replies.map(() => ({ value: 1 }));
    expect(await scene.run(async () => CacheService.invalidate({ tags: ['t'] }))).toEqual({ pending: true });
    log.mockRestore();
  });

  test('that neither Redis nor the outbox takes fails', async () => {
    const scene = cacheScene();
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    scene.state.down = true;
    const broken = {
      withSession: () => {
        throw new Error('D1_ERROR');
      },
    } as unknown as D1Database;
    await expect(
      scene.run(async () => CacheService.invalidate({ tags: ['t'] }), scene.isolate, broken),
    ).rejects.toThrow(expect.objectContaining({ name: 'DatabaseUnavailable' }));
    log.mockRestore();
  });
});

test('a request does not go on with a value that it read beside its change', async () => {
  const scene = cacheScene();
  const given = await cachedIn(scene, freshNamespace());
  scene.state.sent = [];
  const delivery = gate();
  const delivers = (commands: readonly Command[]) => commands.some(([name]) => name === 'SET');
  scene.state.before = (commands) => (delivers(commands) ? delivery.opened : undefined);
  await scene.run(async () => {
    const changed = CacheService.change({ tags: given.tags }, (db) => [
      db
        .select({ n: sql`1` })
        .from(users)
        .limit(1),
    ]);
    await expect.poll(() => scene.state.sent.some(delivers)).toBe(true);
    expect(await CacheService.query(given, unasked)).toBe('old');
    delivery.open();
    await changed;
    expect(await CacheService.query(given, async () => 'new')).toBe('new');
  });
});

describe('a load under way', () => {
  const startLoad = (scene: Scene, given: Parameters<Scene['query']>[0]) => {
    const held = gate();
    let calls = 0;
    const ask = () =>
      scene.query(given, async () => {
        calls += 1;
        await held.opened;
        return calls;
      });
    return { ask, open: held.open, calls: () => calls };
  };

  test('is joined whatever else is invalidated in its isolate', async () => {
    const scene = cacheScene();
    const namespace = freshNamespace();
    const load = startLoad(scene, { namespace, args: 1, tags: [`tag ${namespace}`], ttlSeconds: 60 });
    const answers = [load.ask()];
    await expect.poll(() => load.calls()).toBe(1);
    for (let other = 1; other < 20; other += 1) {
      await scene.run(async () => CacheService.invalidate({ tags: [`other ${other}`] }));
      scene.state.sent = [];
      answers.push(load.ask());
      await expect.poll(() => scene.state.sent.length).toBe(1);
    }
    load.open();
    expect(new Set(await Promise.all(answers))).toEqual(new Set([1]));
    expect(load.calls()).toBe(1);
  });

  test.each(['Redis got it', 'Redis could not be reached', 'a flush has lost it', 'thousands of others followed'])(
    'is not joined once its isolate has invalidated what it loads: %s',
    async (how) => {
      const scene = cacheScene();
      const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
      const namespace = freshNamespace();
      const load = startLoad(scene, { namespace, args: 1, tags: [`tag ${namespace}`], ttlSeconds: 60 });
      const first = load.ask();
      await expect.poll(() => load.calls()).toBe(1);
      const isUndelivered = how === 'Redis could not be reached';
      if (isUndelivered) {
        scene.state.before = (commands) =>
          commands.some(([name, , , nx]) => name === 'SET' && nx !== 'NX')
            ? Promise.reject(new RedisUnavailable('refused'))
            : undefined;
      }
      await scene.run(async ({ batch }) => {
        expect(await CacheService.invalidate({ tags: [`tag ${namespace}`] })).toEqual({ pending: isUndelivered });
        if (how === 'a flush has lost it')
          await batch.send('UNLINK', scene.isolate.keys.tagVersion(`tag ${namespace}`));
      });
      if (how === 'thousands of others followed') {
        for (let n = 0; n < 3; n += 1)
          scene.isolate.singleFlight.separate(Array.from({ length: 1_000 }, (_, i) => `other ${n} ${i}`));
      }
      const second = load.ask();
      await expect.poll(() => load.calls()).toBe(2);
      load.open();
      await Promise.all([first, second]);
      log.mockRestore();
    },
  );
});

/** A load that has read its value, and whose first tag versions are on their way until its end. */
async function loadWithVersionsHeld(scene: Scene, given: Parameters<Scene['query']>[0], value: () => string) {
  scene.state.sent = [];
  const makes = (commands: readonly Command[]) => commands.some(([name, , , nx]) => name === 'SET' && nx === 'NX');
  const tagVersions = gate();
  const loader = gate();
  scene.state.before = (commands) => (makes(commands) ? tagVersions.opened : undefined);
  const answer = scene.query(given, async () => {
    const read = value();
    await loader.opened;
    return read;
  });
  await expect.poll(() => scene.state.sent.some(makes)).toBe(true);
  return {
    end: () => {
      tagVersions.open();
      loader.open();
      scene.state.before = undefined;
      return answer;
    },
  };
}

describe('deletePattern', () => {
  test('of a namespace is one command', async () => {
    const scene = cacheScene();
    const given = await cachedIn(scene, freshNamespace());
    scene.state.sent = [];
    expect(await scene.run(async () => CacheService.deletePattern(`${given.namespace}:*`))).toEqual({
      namespaces: 1,
      pending: false,
      cursor: null,
    });
    expect(scene.state.sent.map((commands) => commands.map(([name]) => name))).toEqual([['SET']]);
    expect(await scene.query(given, async () => 'new')).toBe('new');
  });

  test('of a glob ends the namespaces that match, users’ entries in them too, and no others', async () => {
    const scene = cacheScene();
    const group = freshNamespace();
    const [a, b, other] = [
      await cachedIn(scene, `${group}-a`),
      await cachedIn(scene, `${group}-b`),
      await cachedIn(scene, `x${group}`),
    ];
    expect(await scene.run(async () => CacheService.deletePattern(`${group}-*`))).toEqual({
      namespaces: 2,
      pending: false,
      cursor: null,
    });
    for (const one of [a, b]) expect(await scene.query(one, async () => 'new')).toBe('new');
    expect(await scene.query(other, unasked)).toBe('old');
  });

  test('of a glob ends loads that began before it, when its first tag version is still on its way', async () => {
    const scene = cacheScene();
    const group = freshNamespace();
    await cachedIn(scene, freshNamespace());
    const given = { namespace: `${group}-a`, args: 1, ttlSeconds: 60 };
    let value = 'old';
    const load = await loadWithVersionsHeld(scene, given, () => value);
    value = 'new';
    await scene.run(async () => CacheService.deletePattern(`${group}-*`), scene.elsewhere);
    expect(await load.end()).toBe('old');
    expect(await scene.run(async () => CacheService.query(given, async () => value), scene.elsewhere)).toBe('new');
  });

  test('of plain keys that takes the tag versions along lets no load fill that began before an invalidation', async () => {
    const scene = cacheScene();
    const namespace = freshNamespace();
    await cachedIn(scene, freshNamespace());
    const given = { namespace, args: 1, ttlSeconds: 60 };
    const load = await loadWithVersionsHeld(scene, given, () => 'old');
    await scene.run(async () => {
      await CacheService.invalidate({ namespaces: [namespace] });
      expect(await RedisService.deletePattern('cache', `${namespace}:*`)).toBe(1);
    }, scene.elsewhere);
    expect(await load.end()).toBe('old');
    expect(await scene.run(async () => CacheService.query(given, async () => 'new'), scene.elsewhere)).toBe('new');
  });

  test('of plain keys goes on where it stopped', async () => {
    const scene = cacheScene();
    await scene.run(async ({ batch }) => {
      batch.setDeadline(20_000);
      for (let page = 0; page < 13; page += 1) {
        const writes = Array.from({ length: 1_000 }, (_, i) =>
          batch.send('SET', scene.isolate.keys.plain('many', `k:${page}:${i}`), '1', 'EX', 60),
        );
        await Promise.all(writes);
      }
      await RedisService.set('many', 'other', '1');
      let cursor: string | null = '0';
      let deleted = 0;
      let calls = 0;
      while (cursor !== null) {
        const page: { deleted: number; cursor: string | null } = await RedisService.deletePatternFrom('many', 'k:*', {
          cursor,
          budgetMs: 0,
        });
        deleted += page.deleted;
        ({ cursor } = page);
        calls += 1;
      }
      expect(deleted).toBe(13_000);
      // A page at a time: the budget was nought.
      expect(calls).toBeGreaterThan(1);
      expect(await RedisService.get('many', 'other')).toBe('1');
    });
  });
});
