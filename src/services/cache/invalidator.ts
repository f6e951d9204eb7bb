import type { Config } from '../../config/env';
import { describeError, log } from '../../config/log';
import type { BatchResults, Database, Drizzle, Statement } from '../../db/client';
import type { RedisBatch } from '../../redis/batch';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { escapeGlob, walkKeys } from '../../redis/scan';
import { bump } from './entry';
import { invalidationCommands, keysOf, recordable } from './invalidation';
import type { Invalidation } from './invalidation';

/** A search for namespaces stops after this time and returns its cursor. */
const SEARCH_MS = 20_000;

/** Kept with a change, for a retry of its request when the response was not stored. */
export interface ChangeRecord {
  /** Passed to the route's `again`: ids and versions, no secrets. */
  reference?: object;
}

export interface InvalidatorDeps {
  batch: RedisBatch;
  /** Makes a batch with a long deadline, for work with many trips. */
  slowBatch: () => RedisBatch;
  keys: Keys;
  database: Database;
  /** Writes a change together with the row of the request's `Idempotency-Key`. */
  idempotency: Pick<Database, 'batch'> & {
    batch(statements: (db: Drizzle) => Statement[], record?: ChangeRecord): Promise<readonly unknown[]>;
  };
  /** Records an invalidation, and delivers it to Redis. */
  outbox: {
    prepare(messages: readonly (Invalidation & { kind: 'invalidate' })[]): {
      statements(db: Drizzle): Statement[];
      deliver(): Promise<{ pending: boolean }>;
    };
  };
  settings: Config['cache'];
  /** As `CacheService.forgetReads`. */
  forgetReads: (redisKeys?: readonly string[]) => void;
  now: () => number;
  degraded: (what: string) => void;
}

/** The invalidating methods of `CacheService`. */
export function createInvalidator(deps: InvalidatorDeps) {
  const { batch, slowBatch, keys, database, idempotency, outbox, settings, forgetReads, now, degraded } = deps;

  const record = (change: Invalidation) => outbox.prepare([{ kind: 'invalidate', ...recordable(change) }]);

  async function invalidate(change: Invalidation): Promise<{ pending: boolean }> {
    const commands = invalidationCommands(keys, change, settings.tombstoneSeconds);
    const ended = keysOf(commands);
    forgetReads(ended);
    try {
      const replies = await Promise.all(commands.map((command) => batch.send(...command)));
      // Any other reply does not acknowledge the command.
      if (replies.some((reply) => reply !== 'OK')) throw new RedisUnavailable('garbage');
      return { pending: false };
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('invalidation=pending');
      log('warn', 'cache.invalidation_pending', describeError(error));
      const entry = record(change);
      await database.batch((db) => entry.statements(db));
      return entry.deliver();
    } finally {
      // A value that was read while the commands were in flight may be older than the invalidation.
      forgetReads(ended);
    }
  }

  async function deletePattern(pattern: string, cursor?: string) {
    const name = pattern.replace(/:\*$/, '');
    if (escapeGlob(name) === name) {
      return { namespaces: 1, cursor: null, ...(await invalidate({ namespaces: [name] })) };
    }
    forgetReads();
    const slow = slowBatch();
    let namespaces = 0;
    // SCAN misses a tag version whose first write is still in flight. With a new flush sentinel its load fills no entry.
    if (cursor === undefined) await slow.send(...bump(keys.flushSentinel));
    // A namespace without a tag version has no entries that can be served.
    const rest = await walkKeys(
      slow,
      keys.namespaceVersion(name),
      async (found) => {
        await Promise.all(found.map((key) => slow.send(...bump(key))));
        namespaces += found.length;
      },
      { cursor, budgetMs: SEARCH_MS, now },
    );
    forgetReads();
    return { namespaces, pending: false, cursor: rest };
  }

  async function change<const S extends readonly [Statement, ...Statement[]]>(
    invalidation: Invalidation,
    statements: (db: Drizzle) => S,
    changeRecord: ChangeRecord = {},
  ): Promise<BatchResults<S>> {
    const entry = record(invalidation);
    let count = 0;
    const results = await idempotency.batch((db) => {
      const made = statements(db);
      count = made.length;
      return [...made, ...entry.statements(db)];
    }, changeRecord);
    if ((await entry.deliver()).pending) degraded('invalidation=pending');
    return results.slice(0, count) as BatchResults<S>;
  }

  return { invalidate, deletePattern, change };
}
