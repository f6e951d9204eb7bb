import type { AccountRow } from '../db/schema';
import type { FoundFacts } from './blacklist/facts';
import type { CacheReads } from './cache/reader';

/** A user's row, read by this request's check for revoked tokens. */
export interface KnownAccount {
  readonly account: AccountRow;
  /** By the wall clock: the row is at least as new as this. */
  readonly readAtWallMs: number;
}

/** A job may run for minutes: a row is reused for as long as a request's other reads. */
const REUSE_MS = 1_000;

/**
 * Users that the current request has read from D1 with its check for revoked tokens, so that its handler need not read them
 * again.
 */
export class RequestAccounts {
  readonly #known = new Map<string, KnownAccount & { order: number; gotAtMs: number }>();
  readonly #reads: () => CacheReads;
  readonly #now: () => number;
  #order = 0;

  constructor(reads: () => CacheReads, now: () => number) {
    this.#reads = reads;
    this.#now = now;
  }

  /** Numbers the request's reads: a read with a larger number began after one with a smaller number had ended. */
  nextOrder(): number {
    return (this.#order += 1);
  }

  /** Resolves when the request's pending reads of cache entries are done. */
  async readsSettled(): Promise<void> {
    await Promise.allSettled([...this.#reads().values()].map(({ snapshot }) => snapshot));
  }

  /** @param order taken before D1 was asked */
  note({ account, askedAtWallMs }: FoundFacts, order: number): void {
    if (account === undefined) return;
    this.#known.set(account.id, { account, readAtWallMs: askedAtWallMs, order, gotAtMs: this.#now() });
  }

  /**
   * The row, unless the request has invalidated something since.
   *
   * @param since the order of the cache read whose entry the row will fill: an older row may miss a change that this read
   *   has seen. `undefined`: the row fills no entry
   */
  get(userId: string, since: number | undefined): KnownAccount | undefined {
    const known = this.#known.get(userId);
    if (known === undefined || Math.abs(this.#now() - known.gotAtMs) > REUSE_MS) return undefined;
    return since === undefined || since < known.order ? known : undefined;
  }

  forget(): void {
    this.#known.clear();
  }
}
