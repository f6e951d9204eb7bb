import { BoundedMap } from '../rateLimit/local';

/** A user's versions as D1 has them, and whether the session asked about is alive. `null`: there is no such user. */
export interface RevocationFacts {
  epoch: number;
  accessVersion: number;
  sessionEnded: boolean;
}

/** While Redis is away an isolate asks D1 for a session at most this often. */
const LIFE_MS = 1_000;

/**
 * What D1 said of sessions a moment ago, and the lookups under way: plain data, shared by the requests of an isolate.
 * Whoever revokes something here forgets all of it, so that this isolate never accepts what it has just revoked.
 */
export class RevocationMemo {
  #known = new BoundedMap<string, { facts: RevocationFacts | null; atMs: number }>(5_000);
  #lookups = new Map<string, Promise<RevocationFacts | null>>();

  get(sessionId: string, nowMs: number): { facts: RevocationFacts | null } | undefined {
    const known = this.#known.get(sessionId);
    return known !== undefined && nowMs - known.atMs < LIFE_MS ? known : undefined;
  }

  underWay(sessionId: string): Promise<RevocationFacts | null> | undefined {
    return this.#lookups.get(sessionId);
  }

  /** Registers a lookup; its result is remembered unless something was revoked while it ran. */
  track(
    sessionId: string,
    lookup: Promise<RevocationFacts | null>,
    now: () => number,
  ): Promise<RevocationFacts | null> {
    const known = this.#known;
    const lookups = this.#lookups;
    const tracked = lookup
      .then((facts) => {
        known.set(sessionId, { facts, atMs: now() });
        return facts;
      })
      .finally(() => {
        if (lookups.get(sessionId) === tracked) lookups.delete(sessionId);
      });
    lookups.set(sessionId, tracked);
    return tracked;
  }

  forget(): void {
    // Lookups that began before still write, into maps that nobody reads any more.
    this.#known = new BoundedMap(5_000);
    this.#lookups = new Map();
  }
}
