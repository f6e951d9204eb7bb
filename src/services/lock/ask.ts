import type { RedisBatch } from '../../redis/batch';
import type { Argument, RedisValue } from '../../redis/client';
import { RedisUnavailable } from '../../redis/errors';
import type { Script } from '../../redis/script';
import { sleep } from '../../util/retry';

export interface AskDeps {
  /** A batch with its own deadline: waiting for a lock takes longer than the request's one deadline. */
  batchWithin: (deadlineMs: number) => RedisBatch;
  /** How long one reply may take, with all tries, in milliseconds. */
  deadlineMs: number;
  now: () => number;
  /** Uniform in [0, 1). */
  random?: () => number;
}

export interface Asked {
  reply: RedisValue;
  /** When the try began that got the reply. */
  askedAtMs: number;
  /** Whether it was the first: an earlier one may have been carried out as well, or will be. */
  certain: boolean;
}

const TRIES = 3;
const RETRY_MS = 20;

/** Runs scripts that may safely run twice: after a lost reply it tries again, within one deadline for all tries. */
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

/** What is over for this deadline, or was not even tried, is not asked again. */
function isWorthAnotherTry(error: unknown): boolean {
  return error instanceof RedisUnavailable && error.reason !== 'deadline' && error.reason !== 'breaker';
}
