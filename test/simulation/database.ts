import type { Invocation } from './isolate.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';

/** Which database the Worker is built for. */
export type DatabaseKind = 'd1' | 'postgres';

/** What happens to calls of the database. */
export type DatabaseMode =
  /** All calls fail. */
  | 'away'
  /** Calls disappear. */
  | 'hang'
  /** Each call for itself: fails, is committed though its response is lost, is late, or fine. */
  | 'flaky'
  /** Up to some seconds late. */
  | 'slow'
  /** Connections break while a transaction is under way, so that it is rolled back. On D1 such a call fails. */
  | 'cuts';

export interface DatabaseDeps {
  scheduler: Scheduler;
  random: (label: string) => Random;
  trace: (line: () => string) => void;
  unsettled: (kind: 'database', fromMs: number, toMs: number) => void;
  /** Asked about the outbox, or about Redis's age. */
  upkeep: (invocation: Invocation) => void;
  /** An isolate does what workerd forbids (`fault`), or what is of no use (`cost`). */
  violate: (invariant: 'fault' | 'cost', text: string) => void;
}

/** A database of the simulated world: D1 or PostgreSQL. */
export interface Database {
  /** In traces. */
  readonly name: string;
  readonly faults: DatabaseFaults;
  /** What the Worker's environment has for it. */
  env(): object;
  /** What `connect` of `cloudflare:sockets` gives. */
  connect(invocation: Invocation): object;
  /** A statement of an operator's, past the network and its faults. @returns its rows */
  execute(sql: string): unknown[][];
  /** Remembers everything that is committed. @returns goes back to it */
  save(): () => void;
}

/** A call that takes longer both ways is unusual. */
export const USUAL_MS = 24;

export interface Fate {
  outcome: 'fine' | 'failed' | 'lost' | 'response-lost' | 'cut';
  lateMs: number;
  lateBackMs: number;
}

/** What is wrong with a database, or with the way to it. */
export class DatabaseFaults {
  mode: DatabaseMode | undefined;
  /** The only isolate that the mode concerns. */
  only: number | undefined;
  /** How many of the next calls fail, whatever the mode. */
  failNext = 0;
  /** PostgreSQL ends some transactions with a serialization failure, as if others ran beside them. */
  conflicts = false;
  readonly #random: Random;
  readonly #deps: DatabaseDeps;

  constructor(random: Random, deps: DatabaseDeps) {
    this.#random = random;
    this.#deps = deps;
  }

  modeFor({ isolate }: Invocation): DatabaseMode | undefined {
    return this.only === undefined || this.only === isolate.index ? this.mode : undefined;
  }

  /** What happens to the next call. */
  fate(invocation: Invocation): Fate {
    const random = this.#random;
    const fine = { outcome: 'fine' as const, lateMs: 0, lateBackMs: 0 };
    if (this.failNext > 0) {
      this.failNext -= 1;
      // It may have been due long before: what fails is out of order now.
      const { nowMs } = this.#deps.scheduler;
      this.#deps.unsettled('database', nowMs, nowMs);
      return { ...fine, outcome: 'failed' };
    }
    switch (this.modeFor(invocation)) {
      case undefined:
        return fine;
      case 'away':
        return { ...fine, outcome: 'failed' };
      case 'hang':
        return { ...fine, outcome: 'lost' };
      case 'slow': {
        const way = () => (random.chance(0.6) ? 0 : random.between(0, 1_800));
        return { ...fine, lateMs: way(), lateBackMs: way() };
      }
      case 'flaky': {
        const outcome = random.pick(['fine', 'fine', 'failed', 'response-lost', 'late'] as const);
        return outcome === 'late' ? { ...fine, lateMs: random.between(100, 3_000) } : { ...fine, outcome };
      }
      case 'cuts':
        return { ...fine, outcome: random.chance(0.3) ? 'cut' : 'fine' };
    }
  }
}

/** Counts a call as one round trip of its request. */
export function countCall(invocation: Invocation, statements: readonly string[], { upkeep }: DatabaseDeps): void {
  // What looks after Redis, the outbox and changed limits goes on beside the request, which does not wait for it.
  const all = (tables: RegExp) => statements.every((sql) => tables.test(sql));
  if (all(/\b(?:outbox|redis_state)\b/)) upkeep(invocation);
  else if (!all(/\blimit_overrides\b/)) invocation.databaseTrips += 1;
}

/** Statements as a trace has them. */
export function brief(statements: readonly string[]): string {
  return statements
    .map((sql) =>
      sql
        .replaceAll(/"|`|\s+/g, ' ')
        .replaceAll(/ +/g, ' ')
        .trim()
        .slice(0, 70),
    )
    .join('; ');
}
