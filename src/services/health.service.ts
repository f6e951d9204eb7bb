import { sql } from 'drizzle-orm';

import { isRedisAvailable, redisAvailability } from '../config/redis';
import type { Database } from '../db/client';
import { DatabaseUnavailable } from '../db/errors';
import { users } from '../db/schema';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import { RedisError } from '../redis/errors';
import type { Shards } from '../redis/shards';
import { facade } from './scope';

export interface DependencyState {
  status: 'up' | 'down' | 'degraded';
  detail?: string;
}

export interface Readiness {
  /** `degraded`: serves requests by the failure policies. */
  status: 'ready' | 'degraded' | 'unready';
  dependencies: { redis: DependencyState & { breaker: Breaker['state'] }; database: DependencyState };
  /** Number of requests, by failure policy, that used it in the responding isolate since it started. */
  degradedRequests: Record<string, number>;
}

/** Redis's state according to an isolate's own calls. */
export interface RedisHealth {
  /** `unknown`: no response yet. `degraded`: Redis responds, but some of its shards cannot serve. */
  redis: 'unknown' | 'up' | 'degraded' | 'down';
  /** Whether the breaker is closed: requests call Redis. */
  redisAvailable: boolean;
  /** The number of cluster shards that this isolate does not call, because they failed. */
  redisShardsOut: number;
}

export interface HealthService {
  /** From memory, without a call to Redis. */
  redis(): RedisHealth;
  /**
   * Checks each dependency, at most once a second and whenever the breaker has changed. Without Redis the app still serves;
   * without the database it serves existing sessions.
   */
  readiness(): Promise<Readiness>;
}

declare module './scope' {
  interface ServiceMap {
    health: HealthService;
  }
}

export const HealthService: HealthService = facade('health');

/** The last result, shared by an isolate's requests, so that frequent checks do not load the dependencies. */
export interface ReadinessMemo {
  last?: { atMs: number; readiness: Readiness };
}

const MEMO_MS = 1_000;

export interface HealthDeps {
  batch: RedisBatch;
  database: Database;
  breaker: Breaker;
  shards: Pick<Shards, 'outCount'>;
  degradations: ReadonlyMap<string, number>;
  memo: ReadinessMemo;
  now: () => number;
}

export function createHealthService(deps: HealthDeps): HealthService {
  const { batch, database, breaker, shards, degradations, memo, now } = deps;

  async function redis(): Promise<DependencyState> {
    try {
      const [, info] = await Promise.all([
        batch.send('PING'),
        // Hosted Redis may refuse INFO.
        batch.send('INFO', 'memory').catch(() => null),
      ]);
      const policy = typeof info === 'string' ? /^maxmemory_policy:([\w-]+)/m.exec(info)?.[1] : undefined;
      if (shards.outCount > 0) return { status: 'degraded', detail: `${shards.outCount} of its shards cannot serve` };
      return policy === undefined || policy === 'noeviction'
        ? { status: 'up' }
        : { status: 'degraded', detail: `maxmemory-policy is ${policy}; it should be noeviction` };
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      return { status: 'down', detail: error.message };
    }
  }

  async function db(): Promise<DependencyState> {
    try {
      // Query a table of the app: a database without its migrations is not ready.
      await database.run((drizzle) =>
        drizzle
          .select({ one: sql`1` })
          .from(users)
          .limit(1),
      );
      const problem = await database.check();
      return problem === undefined ? { status: 'up' } : { status: 'degraded', detail: problem };
    } catch (error) {
      if (error instanceof DatabaseUnavailable) {
        return { status: 'down', detail: `The database is unavailable (${error.message})` };
      }
      return { status: 'down', detail: error instanceof Error ? error.message : 'unknown' };
    }
  }

  async function ask(): Promise<Readiness> {
    const [redisState, databaseState] = await Promise.all([redis(), db()]);
    const dependencies = { redis: { ...redisState, breaker: breaker.state }, database: databaseState };
    const states = [redisState.status, databaseState.status];
    const degradedRequests = Object.fromEntries(degradations);
    if (states.every((status) => status === 'up')) return { status: 'ready', dependencies, degradedRequests };
    // With one of the two, existing sessions work; with neither, no request does.
    const status = states.every((state) => state === 'down') ? 'unready' : 'degraded';
    return { status, dependencies, degradedRequests };
  }

  return {
    redis() {
      const known = redisAvailability();
      const redisShardsOut = shards.outCount;
      return {
        redis: known === 'up' && redisShardsOut > 0 ? 'degraded' : known,
        redisAvailable: isRedisAvailable(),
        redisShardsOut,
      };
    },

    async readiness() {
      const { last } = memo;
      const unchanged = last?.readiness.dependencies.redis.breaker === breaker.state;
      if (last !== undefined && unchanged && now() - last.atMs < MEMO_MS) return last.readiness;
      const readiness = await ask();
      memo.last = { atMs: now(), readiness };
      return readiness;
    },
  };
}
