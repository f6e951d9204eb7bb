import type { Command, RedisClient } from '../../../src/redis/client';
import { createRedisClient } from '../../../src/redis/client';
import { configOf } from '../../../src/config/env';
import { defineScript } from '../../../src/redis/script';
import { rateLimit } from '../../../src/redis/scripts/rateLimit';
import { rateLimitRecord } from '../../../src/redis/scripts/rateLimitRecord';
import { bindings } from './request';

/** mulberry32: the same schedule on every run. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * below);
  };
}

/** A server that forbids TIME in scripts, so that the caller's clock decides. */
export const withoutTime = (text: string) => text.replace("redis.pcall('TIME')", "{err = 'forbidden'}");

/** Keys expire by the engine's own clock, which may run ahead of the test's: not while a test runs. */
const keptLonger = (text: string) => text.replace("'PX', ttl)", "'PX', ttl + 600000)");

const SCRIPTS = new Map(
  [rateLimit, rateLimitRecord].map(({ sha, text }) => [sha, defineScript(keptLonger(withoutTime(text)))] as const),
);

let areLoaded = false;

/** Gives the engine the scripts that {@link clocked} names, once: their text with each command costs more than running them. */
export async function loadClocked({ execute }: Pick<RedisClient, 'execute'>): Promise<void> {
  if (areLoaded) return;
  await execute([...SCRIPTS.values()].map(({ text }) => ['SCRIPT', 'LOAD', text]));
  areLoaded = true;
}

/**
 * A limiter's command by another clock than the engine's: the isolates' own, or one that the test gives.
 * {@link loadClocked} comes first.
 */
export function clocked(command: Command, redisNow?: () => number): Command {
  const script = SCRIPTS.get(String(command[1]));
  if (command[0] !== 'EVALSHA' || script === undefined) return command;
  const [, , count, ...rest] = command;
  const args = rest.slice(Number(count));
  if (redisNow !== undefined) args[0] = redisNow();
  return ['EVALSHA', script.sha, Number(count), ...rest.slice(0, Number(count)), ...args];
}

/**
 * The engine of the tests, with another clock: the isolates' own, or one that the test gives, whatever the isolates' say.
 */
export function clockedClient(redisNow?: () => number): RedisClient {
  const { url, token } = configOf(bindings()).redis;
  const real = createRedisClient({ url, token });
  return {
    async execute(commands) {
      await loadClocked(real);
      return real.execute(commands.map((command) => clocked(command, redisNow)));
    },
  };
}

export interface Spent {
  atMs: number;
  units: number;
}

/** The most that any window of this length contains, wherever it starts. */
export function worstWindow(spent: readonly Spent[], windowMs: number): number {
  const sorted = spent.toSorted((a, b) => a.atMs - b.atMs);
  let worst = 0;
  let sum = 0;
  let first = 0;
  for (const { atMs, units } of sorted) {
    sum += units;
    while ((sorted[first]?.atMs ?? 0) <= atMs - windowMs) {
      sum -= sorted[first]?.units ?? 0;
      first += 1;
    }
    worst = Math.max(worst, sum);
  }
  return worst;
}
