import { BoundedMap } from '../../redis/boundedMap';
import type { Versions } from './denials';

/** What D1 says of a session and its user. `null`: there is no such user. */
export type RevocationFacts = (Versions & { sessionEnded: boolean; revokedTokens: ReadonlySet<string> }) | null;

/** While Redis is away an isolate asks D1 for a session at most this often. */
const LIFE_MS = 1_000;
/** More than an isolate has under way at a time. One that is evicted goes on; it is only no longer shared. */
const MAX_LOOKUPS = 1_000;

/**
 * What D1 said of sessions a moment ago, and the lookups under way: plain data, shared by the requests of an isolate.
 */
export class RevocationMemo {
  readonly #known = new BoundedMap<string, { facts: RevocationFacts; atMs: number }>(5_000);
  // Bounded: a lookup whose request died never settles, and nothing else would remove it.
  readonly #lookups = new BoundedMap<string, Promise<RevocationFacts>>(MAX_LOOKUPS);

  /** Lookups under way, and those whose request died. */
  get lookups(): number {
    return this.#lookups.size;
  }

  /** `undefined` when D1 has to be asked. */
  get(sessionId: string, nowMs: number): RevocationFacts | undefined {
    const known = this.#known.get(sessionId);
    return known !== undefined && nowMs - known.atMs < LIFE_MS ? known.facts : undefined;
  }

  underWay(sessionId: string): Promise<RevocationFacts> | undefined {
    return this.#lookups.get(sessionId);
  }

  /** Registers a lookup, for others to share and for its result to be remembered. */
  track(sessionId: string, lookup: Promise<RevocationFacts>, now: () => number): Promise<RevocationFacts> {
    const tracked = lookup
      .then((facts) => {
        this.#known.set(sessionId, { facts, atMs: now() });
        return facts;
      })
      .finally(() => {
        if (this.#lookups.get(sessionId) === tracked) this.#lookups.delete(sessionId);
      });
    this.#lookups.set(sessionId, tracked);
    return tracked;
  }
}
