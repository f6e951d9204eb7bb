import { BoundedMap } from '../../util/boundedMap';
import { FreshSingleFlight } from '../freshSingleFlight';
import type { FoundFacts, RevocationFacts } from './facts';

/** While Redis is away, an isolate asks D1 about a session at most this often. */
const LIFE_MS = 1_000;

/** Recent facts about sessions from D1, and the lookups in progress. Plain data, shared by the isolate's requests. */
export class RevocationMemo {
  readonly singleFlight = new FreshSingleFlight<FoundFacts>();
  readonly #known = new BoundedMap<string, { facts: RevocationFacts; askedAtMs: number }>(5_000);

  /** `undefined` if D1 must be asked. */
  get(sessionId: string, nowMs: number): RevocationFacts | undefined {
    const known = this.#known.get(sessionId);
    return known !== undefined && Math.abs(nowMs - known.askedAtMs) < LIFE_MS ? known.facts : undefined;
  }

  /** @param askedAtMs when D1 was asked: the facts may be that old, even if the response came late */
  set(sessionId: string, facts: RevocationFacts, askedAtMs: number): void {
    const known = this.#known.get(sessionId);
    if (known === undefined || known.askedAtMs <= askedAtMs) this.#known.set(sessionId, { facts, askedAtMs });
  }
}
