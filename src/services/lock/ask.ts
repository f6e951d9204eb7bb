import type { RedisBatch } from '../../redis/batch';
import type { Argument, RedisValue } from '../../redis/client';
import { RedisUnavailable } from '../../redis/errors';
import type { Script } from '../../redis/script';
import { sleep } from '../../util/retry';

export interface AskDeps {
  /** Makes a batch with its own deadline: waiting for a lock takes longer than the request's deadline. */
  batchWithin: (deadlineMs: number) => RedisBatch;
  /** How long one reply may take, including all attempts, in milliseconds. */
  deadlineMs: number;
  now: () => number;
  /** Uniform in [0, 1). */
  random?: () => number;
}

export interface Asked {
  reply: RedisValue;
  /** When the successful attempt began. */
  askedAtMs: number;
  /** Whether the first attempt succeeded. Otherwise an earlier one may also have been executed, or will be. */
  certain: boolean;
}

const TRIES = 3;
const RETRY_MS = 20;

/** Runs scripts that may safely run twice: after a lost reply it retries, within one deadline for all attempts. */
export function createAsk({ batchWithin, deadlineMs, now, random = Math.random }: AskDeps) {
  /** @throws {RedisError} */
  return async function ask(script: Script, keys: string[], args: Argument[]): Promise<Asked> {
    const untilMs = now() + deadlineMs;
    for (let attempt = 1; ; attempt += 1) {
      const askedAtMs = now();
      try {
        const reply = await batchWithin(untilMs - askedAtMs).run(script, keys, args);
        return { reply, askedAtMs, certain: attempt === 1 };
      } catch (error) {
        if (!isWorthAnotherTry(error) || attempt === TRIES || now() + 2 * RETRY_MS >= untilMs) throw error;
        await sleep(RETRY_MS * (0.5 + random()));
      }
    }
  };
}

/** No retry when the deadline has passed or the call was not made. */
function isWorthAnotherTry(error: unknown): boolean {
  return error instanceof RedisUnavailable && error.reason !== 'deadline' && error.reason !== 'breaker';
}
