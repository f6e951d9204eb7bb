import { describe, expect, test, vi } from 'vitest';

import { DatabaseUnavailable } from '../../../../src/db/client';
import { AppError } from '../../../../src/errors';
import { CacheService } from '../../../../src/services/cache.service';
import { UserService } from '../../../../src/services/user.service';
import { bindings, inRequest } from '../../support/request';
import { cacheScene, freshNamespace, gate } from '../../support/cache';

const down = () => Promise.reject(new DatabaseUnavailable('down'));

async function expired(settings: Record<string, unknown> = {}) {
  const scene = cacheScene(settings);
  const given = { namespace: freshNamespace(), args: 1, tags: ['t'], ttlSeconds: 60, staleIfErrorSeconds: 600 };
  await scene.query(given, async () => 'old');
  scene.clock.ms += 61_000;
  return { scene, given };
}

describe('after its TTL a value', () => {
  test('is served when the loader fails, and the answer says so', async () => {
    const { scene, given } = await expired();
    await scene.run(async ({ degraded }) => {
      expect(await CacheService.query(given, down)).toBe('old');
      expect([...degraded]).toEqual(['cache=stale']);
    });
  });

  test('is served without a further try while the loader has just failed, and reloaded when it works again', async () => {
    const { scene, given } = await expired();
    let tries = 0;
    const failing = () => {
      tries += 1;
      return down();
    };
    for (let reads = 0; reads < 5; reads += 1) expect(await scene.query(given, failing)).toBe('old');
    expect(tries).toBe(1);
    scene.clock.ms += 1_001;
    expect(await scene.query(given, async () => 'new')).toBe('new');
  });

  test('is served when the loader hangs', async () => {
    const { scene, given } = await expired({ LOADER_DEADLINE_MS: '100' });
    let aborted = false;
    const value = await scene.query(given, ({ signal }) => {
      signal.addEventListener('abort', () => (aborted = true));
      return new Promise<never>(() => undefined);
    });
    expect(value).toBe('old');
    expect(aborted).toBe(true);
  });

  test('is not served in place of an answer, nor ever after one', async () => {
    const { scene, given } = await expired();
    const gone = () => Promise.reject(new AppError('NOT_FOUND'));
    await expect(scene.query(given, gone)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(scene.query(given, down)).rejects.toThrow('down');
  });

  test.each([
    ['a tag', { tags: ['t'] }],
    ['its key', 'key'],
  ] as const)('is not served when %s was invalidated', async (_, change) => {
    const { scene, given } = await expired();
    await scene.run(
      async () => CacheService.invalidate(change === 'key' ? { keys: [CacheService.keyOf(given)] } : change),
      scene.elsewhere,
    );
    await expect(scene.query(given, down)).rejects.toThrow('down');
  });

  test('is not served after its window', async () => {
    const { scene, given } = await expired();
    scene.clock.ms += 600_000;
    await expect(scene.query(given, down)).rejects.toThrow('down');
  });

  test('is loaded by one of many when the loader works, and by no other', async () => {
    const { scene, given } = await expired();
    let loads = 0;
    const values = await Promise.all(
      Array.from({ length: 20 }, () =>
        scene.query(given, async () => {
          loads += 1;
          return 'new';
        }),
      ),
    );
    expect(new Set(values)).toEqual(new Set(['new']));
    expect(loads).toBe(1);
  });
});

test('with the database down users are served until the hard end of their entries', async () => {
  const scene = cacheScene();
  const { DB } = bindings();
  const userId = crypto.randomUUID();
  await DB.prepare(
    `INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms) VALUES (?, ?, 'Ada', '', 1, 1)`,
  )
    .bind(userId, `${userId}@example.com`)
    .run();
  const broken = {
    withSession: () => ({
      prepare: () => {
        throw new Error('D1_ERROR');
      },
    }),
  } as unknown as D1Database;
  const read = (db: D1Database) =>
    // No jitter: entries live as long as the settings say.
    inRequest(() => UserService.getUser(userId), {
      isolate: scene.isolate,
      db,
      now: () => scene.clock.ms,
      random: () => 0,
    });
  await read(DB);
  scene.clock.ms += 601_000;
  expect(await read(broken)).toMatchObject({ id: userId, name: 'Ada' });
  scene.clock.ms += 3_540_000;
  expect(await read(broken)).toMatchObject({ id: userId, name: 'Ada' });
  scene.clock.ms += 60_000;
  await expect(read(broken)).rejects.toThrow(DatabaseUnavailable);
});

test('an error is shared by those who waited for it, and by no later request', async () => {
  const scene = cacheScene();
  const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 60 };
  const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  let loads = 0;
  let missed = 0;
  const { open, opened } = gate();
  const failing = async (): Promise<string> => {
    loads += 1;
    await opened;
    throw new DatabaseUnavailable('down');
  };
  const outcomes = await Promise.allSettled(
    Array.from({ length: 10 }, () =>
      scene.run(async ({ batch }) => {
        CacheService.prefetch(CacheService.keyOf(given));
        await batch.send('PING');
        missed += 1;
        // Once the last one waits as well, the loader may fail.
        if (missed === 10) setTimeout(open, 0);
        return CacheService.query(given, failing);
      }),
    ),
  );
  expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
  expect(loads).toBe(1);
  expect(await scene.query(given, async () => 'works')).toBe('works');
  log.mockRestore();
});
