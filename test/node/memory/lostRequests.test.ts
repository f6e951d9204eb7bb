import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { createShards } from '../../../src/redis/shards.ts';
import { RedisUnavailable } from '../../../src/redis/errors.ts';
import { SingleFlight } from '../../../src/services/cache/singleFlight.ts';
import { FreshSingleFlight } from '../../../src/services/freshSingleFlight.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** As the runtime leaves the promises of a request that it drops. */
const neverSettles = <T>(): Promise<T> => new Promise(() => undefined);

/** Something that only the continuation of a promise refers to, as the suspended functions of a request are. */
function hangFrom(promise: Promise<unknown>): WeakRef<object> {
  const request = { body: 'x'.repeat(1_000) };
  void promise.then(
    () => request.body.length,
    () => request.body.length,
  );
  return new WeakRef(request);
}

/** A `WeakRef` keeps its target until the job that made or read it has ended. */
async function isCollected(request: WeakRef<object>): Promise<boolean> {
  // The runtime drops a request's timers with it.
  vi.clearAllTimers();
  await new Promise(setImmediate);
  collectGarbage();
  return request.deref() === undefined;
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

const MINUTE_MS = 60_000;
const MISSED = { entry: undefined, writeId: '', tagVersions: [] };
const isCurrent = () => true;
const options = { waitUntil: () => undefined, lostAfterMs: MINUTE_MS };

describe('an isolate does not keep a request that the runtime has dropped', () => {
  it('in a load that never ends', async () => {
    const singleFlight = new SingleFlight();
    const lead = () => {
      const loaded = neverSettles<{ json: string }>();
      singleFlight.lead('entry', { loaded, filled: neverSettles(), lostAfterMs: MINUTE_MS, isCurrent });
      return hangFrom(loaded);
    };
    expect(await isCollected(lead())).toBe(true);
    expect(singleFlight.has('entry', MISSED)).toBe(false);
    expect(singleFlight.follow('entry', MISSED)).toBeUndefined();
  });

  it('in a load whose fill never ends', async () => {
    const singleFlight = new SingleFlight();
    const lead = () => {
      const filled = neverSettles();
      singleFlight.lead('entry', {
        loaded: Promise.resolve({ json: '{}' }),
        filled,
        lostAfterMs: MINUTE_MS,
        isCurrent,
      });
      return hangFrom(filled);
    };
    expect(await isCollected(lead())).toBe(true);
    expect(singleFlight.has('entry', MISSED)).toBe(false);
  });

  it('in a load while Redis is away, whether it runs or waits for another', async () => {
    const loads = new FreshSingleFlight<string>();
    const lead = () => loads.lead(['entry'], () => neverSettles<string[]>(), options).map(hangFrom);
    const running = lead()[0]!;
    expect(await isCollected(running)).toBe(true);

    const leadTwo = () => {
      const results = [0, 1].flatMap(() => loads.lead(['entry'], () => neverSettles<string[]>(), options));
      return results.map(hangFrom);
    };
    const [first, second] = leadTwo();
    expect(await isCollected(first!)).toBe(true);
    expect(await isCollected(second!)).toBe(true);
    expect(loads.follow('entry')).toBeUndefined();
  });

  it('in a question about Redis’s shards', async () => {
    const shards = createShards({
      client: { execute: () => neverSettles() },
      probeMs: 1_000,
      probeMaxMs: 30_000,
      probeLostMs: 35_000,
      now: () => 0,
    });
    const refused = { error: new RedisUnavailable('state', { code: 'READONLY' }) };
    const judge = () => hangFrom(shards.judge([['GET', 'key']], [refused]).score as Promise<boolean>);
    expect(await isCollected(judge())).toBe(true);
  });
});

describe('an isolate keeps the load of a request that goes on', () => {
  it('until it has ended, for others to join', async () => {
    const singleFlight = new SingleFlight();
    const { promise, resolve } = Promise.withResolvers<string>();
    const lead = () =>
      singleFlight.lead('entry', {
        loaded: promise.then((json) => ({ json })),
        filled: promise,
        lostAfterMs: MINUTE_MS,
        isCurrent,
      });
    lead();
    await new Promise(setImmediate);
    collectGarbage();
    const followed = singleFlight.follow('entry', MISSED);
    resolve('{}');
    expect(await followed).toEqual({ json: '{}' });
    expect(singleFlight.size).toBe(0);
  });

  it('and while the result is written, when the load itself is over', async () => {
    const singleFlight = new SingleFlight();
    const filled = Promise.withResolvers<void>();
    const load = { loaded: Promise.resolve({ json: '{}' }), filled: filled.promise, lostAfterMs: MINUTE_MS, isCurrent };
    const lead = () => singleFlight.lead('entry', load);
    lead();
    await new Promise(setImmediate);
    collectGarbage();
    expect(await singleFlight.follow('entry', MISSED)).toEqual({ json: '{}' });
    filled.resolve();
    await filled.promise;
    expect(singleFlight.has('entry', MISSED)).toBe(false);
  });
});

describe('loads that count as lost', () => {
  const LOADS = 2_000;

  it('leave the isolate when others begin', () => {
    const singleFlight = new SingleFlight();
    const loads = new FreshSingleFlight<string>();
    const kept: Promise<unknown>[] = [];
    for (let n = 0; n < LOADS; n += 1) {
      const loaded = neverSettles<{ json: string }>();
      singleFlight.lead(`entry ${n}`, { loaded, filled: loaded, lostAfterMs: 0, isCurrent });
      kept.push(loaded, ...loads.lead([`entry ${n}`], () => neverSettles<string[]>(), { ...options, lostAfterMs: 0 }));
    }
    expect(singleFlight.size).toBeLessThan(4);
    expect(loads.size).toBeLessThan(4);
    expect(kept.length).toBe(2 * LOADS);
  });
});
