import { asc, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { DatabaseUnavailable } from '../db/client';
import type { Database } from '../db/client';
import { greatest } from '../db/portable';
import { limitOverrides } from '../db/schema';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { fencedWrite } from '../redis/scripts/fencedWrite';
import type { AuditService } from './audit.service';
import type { IdempotencyService } from './idempotency.service';
import type { LimitAlgorithm, Limit } from './rateLimit/limits';
import { parseOverrides } from './rateLimit/overrides';
import type { OverrideMemory, OverrideTable, OverrideWindow } from './rateLimit/overrides';
import { retry } from '../util/retry';
import { facade } from './scope';

export type { OverrideWindow } from './rateLimit/overrides';

export interface LimitOverride {
  policy: string;
  windows: readonly OverrideWindow[];
  by: string;
  atMs: number;
}

/**
 * Limits that administrators set in place of a policy's own, without a deployment. D1 stores them, Redis has a copy, and
 * each isolate remembers the copy. When a request is decided, that memory is at most `LIMIT_OVERRIDES_SECONDS` old: it is
 * refreshed in the pipeline that checks the limits anyway. If the reply contains other limits, the request is decided
 * again.
 */
export interface LimitOverrideService {
  /** The overriding limits of a policy, as far as this isolate knows. */
  limits(policy: string, algorithm: LimitAlgorithm): readonly Limit[] | undefined;
  /**
   * If the memory is old, refreshes it in the request's next pipeline, after which {@link limits} may have changed; otherwise
   * returns `undefined`. Never rejects.
   */
  refresh(): Promise<void> | undefined;
  /** Whether the memory is too old for a decision. */
  isOld(): boolean;
  /** The overrides in D1. @throws {DatabaseUnavailable} */
  list(): Promise<LimitOverride[]>;
  /**
   * @param windows `null`: back to the app's own limits
   * @returns `pending` if the change is not yet delivered to Redis: it then takes until the next run of the cron trigger
   */
  set(policy: string, windows: readonly OverrideWindow[] | null, by: string): Promise<{ pending: boolean }>;
  /** Publishes D1's overrides in Redis, now or after the response. @returns as {@link set} */
  announce(): Promise<{ pending: boolean }>;
  /** Publishes D1's overrides in Redis, for the cron trigger. */
  publish(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    limitOverride: LimitOverrideService;
  }
}

export const LimitOverrideService: LimitOverrideService = facade('limitOverride');

/** Longer than two intervals of the cron trigger, which writes the copy again on each run. */
const COPY_TTL_MS = 150_000;
const WAITS_MS = [1_000, 4_000, 10_000];

export interface LimitOverrideDeps {
  batch: RedisBatch;
  freshBatch: () => RedisBatch;
  database: Database;
  keys: Keys;
  config: Config;
  audit: AuditService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  overrides: OverrideMemory;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createLimitOverrideService(deps: LimitOverrideDeps): LimitOverrideService {
  const { batch, freshBatch, database, keys, config, audit, idempotency, overrides, waitUntil, now } = deps;
  const ageMs = config.limitOverridesSeconds * 1_000;
  const key = keys.limitOverrides;

  async function readTable(): Promise<OverrideTable> {
    const rows = await database.run((db) => db.select().from(limitOverrides).limit(1_000));
    const set = rows.flatMap(({ policy, windows }) =>
      windows === null ? [] : [[policy, JSON.parse(windows) as OverrideWindow[]] as const],
    );
    return { version: Math.max(0, ...rows.map(({ version }) => version)), policies: Object.fromEntries(set) };
  }

  const write = (through: RedisBatch, table: OverrideTable) =>
    through.run(fencedWrite, [key], [table.version, JSON.stringify(table), COPY_TTL_MS]);

  const isOld = () => ageMs > 0 && overrides.isOld(ageMs, now());

  /** Reads from D1, outside the request's deadline: Redis is away, or has no copy. */
  async function readAround(): Promise<void> {
    try {
      const table = await readTable();
      overrides.learn(table, now());
      await write(freshBatch(), table);
    } catch (error) {
      if (!(error instanceof RedisError) && !(error instanceof DatabaseUnavailable)) throw error;
      log('warn', 'limit_overrides.unread', describeError(error));
    }
  }

  async function ask(): Promise<void> {
    try {
      const table = parseOverrides(await batch.send('HGET', key, 'value'));
      if (table !== undefined) return overrides.learn(table, now());
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
    }
    if (overrides.takeTurn(now())) waitUntil(readAround());
  }

  async function announce(): Promise<{ pending: boolean }> {
    const table = await readTable();
    overrides.learn(table, now());
    try {
      await write(batch, table);
      return { pending: false };
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      const later = retry(() => write(freshBatch(), table), { waitsMs: WAITS_MS });
      waitUntil(later.catch((failure: unknown) => log('warn', 'limit_overrides.unpublished', describeError(failure))));
      return { pending: true };
    }
  }

  return {
    limits: (policy, algorithm) => overrides.limits(policy, algorithm),

    // Each request that meets an old memory: none is decided by it because another one is asking.
    refresh: () => (isOld() ? ask() : undefined),
    isOld,

    async list() {
      const rows = await database.run((db) => db.select().from(limitOverrides).orderBy(asc(limitOverrides.policy)));
      return rows.flatMap(({ policy, windows, by, atMs }) =>
        windows === null ? [] : [{ policy, windows: JSON.parse(windows) as OverrideWindow[], by, atMs }],
      );
    },

    async set(policy, windows, by) {
      const text = windows === null ? null : JSON.stringify(windows);
      const atMs = now();
      // Rows stay, so that versions only grow; and no version comes twice after a restore of D1, which Redis and other isolates
      // may have outlived: they would keep the numbers that were lost.
      const version = sql<number>`(select ${greatest(sql`coalesce(max(version), 0) + 1`, atMs)} from ${limitOverrides})`;
      const noted = audit.prepare(
        windows === null
          ? { by, action: 'limit-restored', detail: { policy } }
          : { by, action: 'limit-overridden', detail: { policy, windows: labelOf(windows) } },
      );
      await idempotency.batch((db) => [
        db
          .insert(limitOverrides)
          .values({ policy, windows: text, by, atMs, version })
          .onConflictDoUpdate({ target: limitOverrides.policy, set: { windows: text, by, atMs, version } }),
        noted(db),
      ]);
      return announce();
    },

    announce,

    async publish() {
      if (ageMs > 0) await write(batch, await readTable());
    },
  };
}

/** Windows in the notation of the settings: `5/900s`. */
export function labelOf(windows: readonly OverrideWindow[]): string {
  return windows.map(({ maxRequests, windowMs }) => `${maxRequests}/${windowMs / 1_000}s`).join(', ');
}
