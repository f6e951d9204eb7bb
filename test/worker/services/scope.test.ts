import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';

import { cacheRenew } from '../../../src/redis/scripts/cacheRenew';
import { runInScope } from '../../../src/services/runInScope';
import type { RequestContext } from '../../../src/services/runInScope';
import { CacheService } from '../../../src/services/cache.service';
import { RedisService } from '../../../src/services/redis.service';
import { currentScope } from '../../../src/services/scope';
import type { RequestScope } from '../../../src/services/scope';
import { cacheScene, freshNamespace, gate } from '../support/cache';
import { isolateFor } from '../support/request';

const ENDED = /This request has ended.*waitUntil/s;
const isolate = isolateFor();

/** A request whose work after the response the test holds in its hands. */
function request<T>(work: (scope: RequestScope) => Promise<T>, own: Partial<RequestContext> = {}) {
  const context = createExecutionContext();
  const waitUntil = (promise: Promise<unknown>) => context.waitUntil(promise);
  const response = runInScope({ isolate, db: env.DB, waitUntil, ...own }, work);
  return {
    response,
    /** Once all is over that was given to `waitUntil`, and what it set off in its turn. */
    done: async () => {
      await waitOnExecutionContext(context);
      await scheduler.wait(0);
    },
  };
}

/** Static calls on from where a request began a promise of its own. */
function detached<T>(opened: Promise<void>, call: () => Promise<T>): { outcome: Promise<T> } {
  return { outcome: opened.then(call) };
}

describe('a static call', () => {
  test('outside a request says how to make one', () => {
    expect(() => RedisService.get('n', 'k')).toThrow(/inside a request/);
  });

  test('in a promise that the request gave to waitUntil works after the response', async () => {
    const { open, opened } = gate();
    const key = freshNamespace();
    let written: Promise<boolean> | undefined;
    const { response, done } = request(async (scope) => {
      written = opened.then(() => RedisService.set('scope', key, 'late', 60));
      scope.waitUntil(written);
      return 'response';
    });
    expect(await response).toBe('response');
    open();
    expect(await written).toBe(true);
    await done();
  });

  test('works in work of the loose waitUntil, which passes later promises on to the runtime', async () => {
    const { open, opened } = gate();
    let loose: RequestScope['waitUntil'] | undefined;
    let read: Promise<string | null> | undefined;
    const given: Promise<unknown>[] = [];
    const context = createExecutionContext();
    const waitUntil = (promise: Promise<unknown>) => {
      given.push(promise);
      context.waitUntil(promise);
    };
    const { response } = request(
      async (scope) => {
        loose = scope.looseWaitUntil();
        read = opened.then(() => RedisService.get('scope', 'nothing'));
        loose(read);
      },
      { waitUntil },
    );
    await response;
    open();
    expect(await read).toBe(null);
    await waitOnExecutionContext(context);
    await scheduler.wait(0);
    const late = Promise.resolve('late');
    loose?.(late);
    expect(given).toContain(read);
    expect(given.at(-1)).toBe(late);
  });

  test('that defers a command after the response sends it, though the request itself has asked Redis nothing', async () => {
    const { open, opened } = gate();
    const key = freshNamespace();
    let sent: Promise<unknown> | undefined;
    const { response } = request(async (scope) => {
      sent = opened.then(() => scope.batch.deferRun(cacheRenew, [key], [1_000]));
      scope.waitUntil(opened);
      void scope.settle();
    });
    await response;
    open();
    // Only a command that never leaves takes as long as this.
    expect(await Promise.race([sent, scheduler.wait(5_000).then(() => 'not sent')])).toBe(0);
  });

  test('works in work that was handed to waitUntil by work of waitUntil', async () => {
    const first = gate();
    const second = gate();
    let last: Promise<string | null> | undefined;
    const { response, done } = request(async (scope) => {
      scope.waitUntil(
        first.opened.then(() => {
          last = second.opened.then(() => RedisService.get('scope', 'nothing'));
          scope.waitUntil(last);
        }),
      );
    });
    await response;
    first.open();
    await scheduler.wait(0);
    second.open();
    expect(await last).toBeNull();
    await done();
  });

  test('in a detached promise fails also after the request that made a static call last has ended', async () => {
    const { open, opened } = gate();
    const { response, done } = request(async () => {
      currentScope();
      return detached(opened, async () => RedisService.get('scope', 'key'));
    });
    const { outcome } = await response;
    await done();
    open();
    await expect(outcome).rejects.toThrow(ENDED);
  });

  test('in a detached promise after the response fails with an error that names waitUntil', async () => {
    const { open, opened } = gate();
    const { response, done } = request(async () => detached(opened, async () => RedisService.get('scope', 'key')));
    const { outcome } = await response;
    await done();
    open();
    await expect(outcome).rejects.toThrow(ENDED);
  });

  test('in a detached promise of a request that failed fails in the same way', async () => {
    const { open, opened } = gate();
    let outcome: Promise<unknown> | undefined;
    const { response, done } = request(async () => {
      ({ outcome } = detached(opened, async () => RedisService.get('scope', 'key')));
      throw new Error('the handler failed');
    });
    await expect(response).rejects.toThrow('the handler failed');
    await done();
    open();
    await expect(outcome).rejects.toThrow(ENDED);
  });
});

test("a request's promises that never settle do not keep its scope open", async () => {
  const { open, opened } = gate();
  const { response, done } = request(async () => {
    void new Promise(() => undefined).then(() => currentScope());
    return detached(opened, async () => currentScope().now());
  });
  const { outcome } = await response;
  await done();
  open();
  await expect(outcome).rejects.toThrow(ENDED);
});

test('a refresh behind the response has a scope until it has filled the cache', async () => {
  const scene = cacheScene();
  const options = { namespace: freshNamespace(), args: 1, ttlSeconds: 60, staleSeconds: 60 };
  await scene.query(options, async () => 'old');
  scene.clock.ms += 61_000;

  const { open, opened } = gate();
  let seen: string | null | undefined;
  const { response, done } = request(
    async () =>
      CacheService.query(options, async () => {
        await opened;
        // As a loader of an app uses them.
        seen = await RedisService.get('scope', 'nothing');
        return 'new';
      }),
    { isolate: scene.isolate, now: () => scene.clock.ms },
  );
  expect(await response).toBe('old');
  open();
  await done();
  expect(seen).toBeNull();
  expect(await scene.query(options, () => Promise.reject(new Error('the loader was asked')))).toBe('new');
});
