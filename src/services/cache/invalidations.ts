import type { BatchResponse } from 'drizzle-orm/batch';

import type { Config } from '../../config/env';
import { describeError, log } from '../../config/log';
import type { Database, Drizzle, Statement } from '../../db/client';
import type { RedisBatch } from '../../redis/batch';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { escapeGlob, walkKeys } from '../../redis/scan';
import { bump } from './entry';
import { invalidationCommands, keysOf, recordable } from './invalidation';
import type { Invalidation } from './invalidation';

/** A search for namespaces stops after this and says where. */
const SEARCH_MS = 20_000;

export interface InvalidationsDeps {
  batch: RedisBatch;
  /** One with a deadline for work that takes many trips. */
  slowBatch: () => RedisBatch;
  keys: Keys;
  database: Database;
  /** Writes an invalidation down, and tells Redis later. */
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

/** What ends entries: see `CacheService`. */
export function createInvalidations(deps: InvalidationsDeps) {
  const { batch, slowBatch, keys, database, outbox, settings, forgetReads, now, degraded } = deps;

  const record = (change: Invalidation) => outbox.prepare([{ kind: 'invalidate', ...recordable(change) }]);

  async function invalidate(change: Invalidation): Promise<{ pending: boolean }> {
    const commands = invalidationCommands(keys, change, settings.tombstoneSeconds);
    const ended = keysOf(commands);
    forgetReads(ended);
    try {
      const replies = await Promise.all(commands.map((command) => batch.send(...command)));
      // Something that answers anything to everything has not been told.
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
      // What was read while Redis was being told may be older than that.
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
    // A first nonce that is still on its way the search would miss: with another mark, nobody fills with it.
    if (cursor === undefined) await slow.send(...bump(keys.cacheMark));
    // A namespace without a nonce has no entry that is served.
    const rest = await walkKeys(
      slow,
      keys.namespaceNonce(name),
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
  ): Promise<BatchResponse<S>> {
    const entry = record(invalidation);
    let count = 0;
    const results = await database.batch((db) => {
      const made = statements(db);
      count = made.length;
      return [...made, ...entry.statements(db)];
    });
    if ((await entry.deliver()).pending) degraded('invalidation=pending');
    return results.slice(0, count) as BatchResponse<S>;
  }

  return { invalidate, deletePattern, change };
}
