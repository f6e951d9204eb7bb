import { describe, expect, test, vi } from 'vitest';

import { AppError } from '../../../../src/errors';
import { HashQueue } from '../../../../src/services/password/hashQueue';

/** A clock whose timers fire when it is moved, in order; a computation stops it, as workerd's stands still meanwhile. */
function scene(max: number) {
  let nowMs = 1_000;
  let behindMs = 0;
  let lateMs = 0;
  let timers: { atMs: number; fire: () => void }[] = [];
  const queue = new HashQueue({
    max,
    now: () => nowMs,
    sleep: (ms) => new Promise((resolve) => timers.push({ atMs: nowMs + ms + lateMs, fire: resolve })),
  });
  const done: string[] = [];
  let running = 0;
  return {
    queue,
    done,
    /** Asks for a hash of 250 ms. */
    ask: (name: string): Promise<string> =>
      queue.run(() => {
        running += 1;
        expect(running).toBe(1);
        behindMs += 250;
        done.push(name);
        running -= 1;
        return name;
      }),
    /** Timers that are set from now on fire later than they should. */
    delayTimers: (ms: number): void => {
      lateMs = ms;
    },
    /** The requests of now are gone: their timers never fire. @returns how many */
    forget: (): number => {
      const lost = timers;
      timers = [];
      return lost.length;
    },
    pass: async (ms: number): Promise<void> => {
      const untilMs = nowMs + ms;
      for (;;) {
        nowMs += behindMs;
        behindMs = 0;
        timers.sort((a, b) => a.atMs - b.atMs);
        const next = timers[0];
        if (next === undefined || next.atMs > untilMs) break;
        timers.shift();
        nowMs = Math.max(nowMs, next.atMs);
        next.fire();
        // Whatever follows from one timer happens before the next.
        for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
      }
      nowMs = Math.max(nowMs, untilMs);
    },
  };
}

const refusal = async (promise: Promise<unknown>) => {
  const error: unknown = await promise.catch((reason: unknown) => reason);
  if (!(error instanceof AppError)) throw new Error('no AppError', { cause: error });
  return error;
};

describe('HashQueue', () => {
  test('computes at once when no other hash is under way, even without a place to wait', async () => {
    const { ask, pass, done } = scene(0);
    const asked = ask('a');
    expect(done).toEqual(['a']);
    await pass(10);
    expect(await asked).toBe('a');
  });

  test('serves in the order of arrival, one at a time, with time for others between', async () => {
    const { ask, pass, done } = scene(10);
    const names = ['a', 'b', 'c', 'd'];
    const asked = names.map((name) => ask(name));
    expect(done).toEqual(['a']);
    await pass(260);
    expect(done).toEqual(['a', 'b']);
    await pass(2_000);
    expect(await Promise.all(asked)).toEqual(names);
    expect(done).toEqual(names);
  });

  test('lets no later request pass one that waits and is a little late', async () => {
    const { ask, pass, done, delayTimers } = scene(2);
    const first = ask('first');
    delayTimers(18);
    const second = ask('second');
    await pass(260);
    expect(await first).toBe('first');
    delayTimers(0);
    const third = ask('third');
    await pass(1_000);
    expect(await Promise.all([second, third])).toEqual(['second', 'third']);
    expect(done).toEqual(['first', 'second', 'third']);
  });

  test('passes on the error of a computation, and goes on', async () => {
    const { queue, ask, pass } = scene(1);
    const failed = refusal(
      queue.run(() => {
        throw new AppError('INTERNAL');
      }),
    );
    const next = ask('next');
    await pass(1_000);
    expect((await failed).code).toBe('INTERNAL');
    expect(await next).toBe('next');
  });

  test('refuses one more than may wait, and says when there is room', async () => {
    const warned = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const { ask, pass, done } = scene(7);
    const asked = Array.from({ length: 8 }, (_, i) => ask(String(i)));
    const error = await refusal(ask('late'));
    expect(error.code).toBe('SERVICE_UNAVAILABLE');
    // Eight hashes of 255 ms.
    expect(error.options.headers).toEqual({ 'Retry-After': '3' });
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('"event":"password.queue_full"'));
    warned.mockRestore();
    await pass(3_000);
    await Promise.all(asked);
    expect(done).toHaveLength(8);
    const retried = ask('late');
    await pass(1_000);
    expect(await retried).toBe('late');
  });

  test('does not wait for requests that are gone, nor count them for long', async () => {
    const { ask, pass, done, forget } = scene(3);
    const first = ask('first');
    await pass(260);
    await first;
    const [, ...gone] = ['second', 'lost 1', 'lost 2'].map((name) => ask(name));
    expect(gone).toHaveLength(2);
    // The one that computes and those behind it are cut off together.
    expect(forget()).toBe(3);
    const alive = ask('alive');
    expect((await refusal(ask('one too many'))).code).toBe('SERVICE_UNAVAILABLE');
    await pass(400);
    expect(await alive).toBe('alive');
    expect(done).toEqual(['first', 'second', 'alive']);
    await pass(3_000);
    const more = ['x', 'y', 'z', 'w'].map((name) => ask(name));
    await pass(2_000);
    expect(await Promise.all(more)).toEqual(['x', 'y', 'z', 'w']);
  });
});
