import type { AccountRow } from '../db/schema';
import type { FoundFacts } from './blacklist/facts';
import type { CacheReads } from './cache/reader';

/** A user's row that this request's check for revoked tokens has read. */
export interface KnownAccount {
  readonly account: AccountRow;
  /** By the wall clock: what the row holds is at least as new as this. */
  readonly readAtWallMs: number;
}

/** A job may run for minutes: a row is used for as long as what else a request has read. */
const REUSE_MS = 1_000;

/**
 * Users that the current request has read from D1 along with its check for revoked tokens, so that its handler need not
 * read them again.
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

  /** Counts what the request reads: of two reads, the one with the larger number began after the other had ended. */
  nextOrder(): number {
    return (this.#order += 1);
  }

  /** Resolves when the cache entries that the request has asked for have been read. */
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
   * @param since the order of the look at the cache that the row is to fill: an older row may hide a change that the look
   *   has seen. `undefined`: the row fills nothing
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
