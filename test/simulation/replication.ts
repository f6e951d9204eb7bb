import type { Random } from './random.ts';
import type { Query, QueryResult, SqlStore, TableRows } from './sqlite.ts';

/** What one session of D1 has seen: an index into the log of changes; `undefined` before its first query. */
export interface DatabaseSession {
  bookmark: number | undefined;
}

/** A replica lags behind by up to this. */
const MAX_LAG_MS = 3_000;

/**
 * The primary, and a read replica as D1 has them: a session's first query goes to the primary (`first-primary`), its later
 * reads may go to a replica that has at least what the session has seen, and nothing of what others have written since.
 */
export class Replication {
  readonly #primary: SqlStore;
  readonly #replica: SqlStore | undefined;
  readonly #random: Random;
  readonly #log: { atMs: number; change: readonly Query[] | TableRows[] }[] = [];
  #applied = 0;

  /** @param replica left out: everything is read from the primary */
  constructor(primary: SqlStore, replica: SqlStore | undefined, random: Random) {
    this.#primary = primary;
    this.#replica = replica;
    this.#random = random;
    replica?.reset();
  }

  /** @throws SQLite's own error */
  run(
    queries: readonly Query[],
    session: DatabaseSession,
    nowMs: number,
  ): { results: QueryResult[]; replica: boolean } {
    const reads = queries.every(({ sql }) => /^\s*(?:select|with)\b/i.test(sql));
    if (reads && this.#replica !== undefined && session.bookmark !== undefined && this.#random.chance(0.8)) {
      this.#catchUp(this.#replica, session.bookmark, nowMs - this.#random.between(0, MAX_LAG_MS));
      session.bookmark = this.#applied;
      return { results: this.#replica.run(queries), replica: true };
    }
    const results = this.#primary.run(queries);
    if (!reads) this.changed(queries, nowMs);
    session.bookmark = this.#log.length;
    return { results, replica: false };
  }

  /** Notes what the primary has done, or has been made. */
  changed(change: readonly Query[] | TableRows[], nowMs: number): void {
    if (this.#replica !== undefined) this.#log.push({ atMs: nowMs, change });
  }

  #catchUp(replica: SqlStore, bookmark: number, untilMs: number): void {
    for (; this.#applied < this.#log.length; this.#applied += 1) {
      const { atMs, change } = this.#log[this.#applied]!;
      if (this.#applied >= bookmark && atMs > untilMs) return;
      if (isCopy(change)) replica.load(change);
      else replica.run(change);
    }
  }
}

const isCopy = (change: readonly Query[] | TableRows[]): change is TableRows[] =>
  change[0] !== undefined && 'table' in change[0];
