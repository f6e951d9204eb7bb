import { and, eq, inArray, isNull, lte, ne, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import { describeError, log } from '../../config/log';
import type { Database, Drizzle, Statement } from '../../db/client';
import { always } from '../../db/portable';
import { idempotencyKeys, users } from '../../db/schema';
import type { IdempotencyKeyRow } from '../../db/schema';
import type { RedisBatch } from '../../redis/batch';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { idempotencyClaim } from '../../redis/scripts/idempotencyClaim';
import { idempotencyFinish } from '../../redis/scripts/idempotencyFinish';
import type { ExecutionName, IdempotencySecrets, StoredResponse } from './secrets';

/** A request with an `Idempotency-Key`. */
export interface KeyedRequest {
  /** The sender, such as `user:<id>`. */
  caller: string;
  /** The owner of the rows: they are deleted with the user. */
  userId?: string | undefined;
  /** Such as `POST /v1/orders/7`. */
  route: string;
  key: string;
  /** Query and body: the key must not be reused with others. */
  content: readonly (string | Uint8Array)[];
  ttlSeconds: number;
}

/** The record of an earlier execution. */
export interface Executed {
  readonly response: StoredResponse | undefined;
  /** Stored by the execution, to build its response again. */
  readonly reference: unknown;
  /** Its response may not be stored yet. */
  readonly recent: boolean;
}

export type KeyOutcome =
  | { status: 'first' }
  /** Another request with this key is in progress. */
  | { status: 'running' }
  /** The key was used with another query or body. */
  | { status: 'different' }
  | { status: 'executed'; executed: Executed };

/** Options of a request's batch, beside its change. */
export interface ExecutionRecord {
  /** A condition, evaluated after the statements of the change: if it is false, the request counts as not executed. */
  when?: SQL;
  /** JSON from which the response is built again: an object without secrets, or an SQL expression. */
  reference?: object | SQL<string>;
  /** The owner of the row, if the request does not name one; `null` if the row outlives its user. */
  userId?: string | null;
}

/** A request with a key, from its guard to its response. */
export interface KeyedExecution {
  /** Whether the change and its row are in the database. */
  readonly executed: boolean;
  /** Whether Redis refuses other requests with this key. Known after `decide`. */
  readonly claimed: boolean;
  /** The outcome according to Redis and D1, which are asked from the start. @throws {DatabaseUnavailable} */
  decide(): Promise<KeyOutcome>;
  /** Asks D1 again: another request may have been executed in the meantime. @returns `first` if none was */
  again(): Promise<KeyOutcome>;
  /** The request was not executed: the key may be tried again. */
  release(): void | Promise<void>;
  /** The request was executed: stores its response, if there is one. Never rejects. */
  finish(response?: StoredResponse): Promise<void>;
}

/** No handler runs longer. If one dies, its key is free after this time. */
const LEASE_MS = 30_000;
/** Longer than a lookup in D1 can take that began before the row was inserted. */
const DONE_MS = 60_000;

export interface ExecutionDeps {
  batch: RedisBatch;
  database: Database;
  keys: Keys;
  secrets: IdempotencySecrets;
  now: () => number;
  degraded: (what: string) => void;
}

type Claim = 'claimed' | 'running' | 'done' | 'different' | 'unknown';

/** An execution with the methods that `IdempotencyService.batch` needs. */
export interface RecordableExecution extends KeyedExecution {
  statements(db: Drizzle, record: ExecutionRecord): Statement[];
  /** Whether the next batch must contain the row. */
  readonly open: boolean;
  /** @param write writes the batch, and returns the rows of the row's statement */
  record(write: () => Promise<readonly unknown[]>): Promise<void>;
}

export function createExecutions({ batch, database, keys, secrets, now, degraded }: ExecutionDeps) {
  async function claim({ id, fingerprint }: ExecutionName, holder: string): Promise<Claim> {
    try {
      const reply = await batch.run(idempotencyClaim, [keys.idempotency(id)], [fingerprint, holder, LEASE_MS]);
      const [state, known] = Array.isArray(reply) && reply.length === 2 ? reply : [];
      if (state !== 'claimed' && state !== 'running' && state !== 'done') throw new RedisUnavailable('garbage');
      return known === fingerprint ? state : 'different';
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('idempotency=d1');
      return 'unknown';
    }
  }

  return function begin({ caller, userId, route, key, content, ttlSeconds }: KeyedRequest): RecordableExecution {
    const names = secrets.namesOf([caller, route, key], content);
    const own = names[0]!;
    const holder = crypto.randomUUID();
    const claimed = claim(own, holder);
    const found = lookUp();
    // A check before this one may refuse the request, and then `found` is never awaited.
    found.catch(() => undefined);
    let executed = false;
    let inRedis: Claim | undefined;
    /** A batch with the row is in progress, or none may contain it any more. */
    let closed = false;
    let expired = false;

    async function lookUp(): Promise<IdempotencyKeyRow | undefined> {
      const ids = names.map(({ id }) => id);
      const [row] = await database.run((db) =>
        db.select().from(idempotencyKeys).where(inArray(idempotencyKeys.id, ids)).limit(1),
      );
      if (row === undefined || row.expiresAtMs > now()) return row;
      expired = true;
      return undefined;
    }

    async function outcomeOf(row: IdempotencyKeyRow): Promise<KeyOutcome> {
      if (names.find(({ id }) => id === row.id)?.fingerprint !== row.fingerprint) return { status: 'different' };
      const response = row.response === null ? undefined : await secrets.open(row.id, row.response);
      const reference: unknown = row.reference === null ? undefined : JSON.parse(row.reference);
      const recent = inRedis !== 'done' && now() - row.createdAtMs < LEASE_MS;
      return { status: 'executed', executed: { response, reference, recent } };
    }

    async function again(): Promise<KeyOutcome> {
      const row = await lookUp();
      return row === undefined ? { status: 'first' } : outcomeOf(row);
    }

    const end = (rememberMs: number) =>
      void batch.deferRun(idempotencyFinish, [keys.idempotency(own.id)], [own.fingerprint, holder, rememberMs]);

    const rowOf = (
      { when = always, reference, userId: owner = userId ?? null }: ExecutionRecord,
      response?: string,
    ) => {
      const atMs = now();
      const made = reference !== undefined && !isSql(reference) ? JSON.stringify(reference) : (reference ?? null);
      return sql`select ${own.id}, ${owner}, ${own.fingerprint}, ${made}, ${response ?? null}, ${atMs},
        ${atMs + ttlSeconds * 1_000} where ${when}`;
    };
    const dropExpired = (db: Drizzle): Statement[] =>
      expired
        ? [
            db
              .delete(idempotencyKeys)
              .where(and(eq(idempotencyKeys.id, own.id), lte(idempotencyKeys.expiresAtMs, now()))),
          ]
        : [];

    /** @returns whether the database has stored it */
    async function note(response: StoredResponse | undefined): Promise<boolean> {
      if (executed && response === undefined) return true;
      const sealed = response && (await secrets.seal(own.id, response));
      // If the user was deleted in the meantime, store nothing.
      const when = userId === undefined ? always : sql`exists (select 1 from ${users} where ${users.id} = ${userId})`;
      const kept = or(isNull(idempotencyKeys.reference), ne(idempotencyKeys.reference, 'null'));
      try {
        await database.batch((db) =>
          executed
            ? [
                db
                  .update(idempotencyKeys)
                  .set({ response: sealed! })
                  .where(and(eq(idempotencyKeys.id, own.id), kept)),
              ]
            : [...dropExpired(db), db.insert(idempotencyKeys).select(rowOf({ when }, sealed)).onConflictDoNothing()],
        );
        return true;
      } catch (error) {
        log('warn', 'idempotency.response_lost', describeError(error));
        return executed;
      }
    }

    const execution: RecordableExecution = {
      get open() {
        return !closed;
      },
      get executed() {
        return executed;
      },
      get claimed() {
        return inRedis === 'claimed';
      },
      async decide() {
        const [state, row] = await Promise.all([claimed, found]);
        inRedis = state;
        if (row !== undefined) return outcomeOf(row);
        switch (state) {
          case 'claimed':
          case 'unknown':
            return { status: 'first' };
          case 'done': {
            // D1 may have been asked before the row was inserted. If there is still no row, the response was sent but not
            // stored.
            const outcome = await again();
            if (outcome.status !== 'first') return outcome;
            return { status: 'executed', executed: { response: undefined, reference: undefined, recent: false } };
          }
          case 'running':
          case 'different':
            return { status: state };
        }
      },
      again,
      release() {
        closed = true;
        // Refused before `decide`: the claim is still in flight, and must not arrive after its end.
        if (inRedis === undefined) return claimed.then(() => end(0));
        if (inRedis === 'claimed' || inRedis === 'unknown') end(0);
        return undefined;
      },
      async finish(response) {
        closed = true;
        const known = await note(response);
        end(known ? DONE_MS : ttlSeconds * 1_000);
      },
      statements: (db, record) => [
        ...dropExpired(db),
        db.insert(idempotencyKeys).select(rowOf(record)).returning({ id: idempotencyKeys.id }),
      ],
      async record(write) {
        closed = true;
        try {
          const rows = await write();
          executed = rows.length > 0;
        } finally {
          closed = executed;
        }
      },
    };
    return execution;
  };
}

const isSql = (value: object): value is SQL<string> => 'queryChunks' in value;
