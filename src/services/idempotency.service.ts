import { inArray, lte } from 'drizzle-orm';

import type { BatchResults, Database, Drizzle, Statement } from '../db/client';
import { idempotencyKeys } from '../db/schema';
import { createExecutions } from './idempotency/execution';
import type {
  ExecutionDeps,
  ExecutionRecord,
  KeyedExecution,
  KeyedRequest,
  RecordableExecution,
} from './idempotency/execution';
import { facade } from './scope';

export type { Executed, ExecutionRecord, KeyedExecution, KeyedRequest, KeyOutcome } from './idempotency/execution';
export type { StoredResponse } from './idempotency/secrets';

/**
 * One execution per `Idempotency-Key`. D1 decides: the row with the key is inserted in the batch of the change, so a second
 * insert violates the primary key. Redis keeps concurrent requests apart.
 */
export interface IdempotencyService {
  /** Looks up a request, in Redis with its guard's pipeline, and at the same time in D1. */
  begin(request: KeyedRequest): KeyedExecution;
  /** Makes this execution the one that the current request's change belongs to. */
  enter(execution: KeyedExecution): void;
  /** `Database.batch`, with the row of the current request's key, if it has one, in the same transaction. */
  batch<const S extends readonly Statement[]>(
    statements: (db: Drizzle) => S,
    record?: ExecutionRecord,
  ): Promise<BatchResults<S>>;
  /** Deletes expired rows, at most a bounded number. */
  purge(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    idempotency: IdempotencyService;
  }
}

export const IdempotencyService: IdempotencyService = facade('idempotency');

const PURGE_ROWS = 5_000;
const PURGES = 4;

export interface IdempotencyDeps extends ExecutionDeps {
  database: Database;
  /** The current request's execution. */
  current: { get(): RecordableExecution | undefined; set(execution: RecordableExecution): void };
}

export function createIdempotencyService(deps: IdempotencyDeps): IdempotencyService {
  const { database, current, now } = deps;
  return {
    begin: createExecutions(deps),
    enter: (execution) => current.set(execution as RecordableExecution),

    async batch<const S extends readonly Statement[]>(statements: (db: Drizzle) => S, record: ExecutionRecord = {}) {
      const execution = current.get();
      // One row per request: later changes of the handler are not tracked separately.
      if (execution?.open !== true) return database.batch(statements);
      let results: readonly unknown[] = [];
      let count = 0;
      await execution.record(async () => {
        results = await database.batch((db) => {
          const made = statements(db);
          count = made.length;
          return [...made, ...execution.statements(db, record)];
        });
        return results.at(-1) as unknown[];
      });
      return results.slice(0, count) as BatchResults<S>;
    },

    async purge() {
      for (let round = 0; round < PURGES; round += 1) {
        const purged = await database.run((db) => {
          const oldest = db
            .select({ id: idempotencyKeys.id })
            .from(idempotencyKeys)
            .where(lte(idempotencyKeys.expiresAtMs, now()))
            .limit(PURGE_ROWS);
          return db
            .delete(idempotencyKeys)
            .where(inArray(idempotencyKeys.id, oldest))
            .returning({ id: idempotencyKeys.id });
        });
        if (purged.length < PURGE_ROWS) return;
      }
    },
  };
}
