import { BoundedMap } from '../../util/boundedMap';
import { FreshSingleFlight } from '../freshSingleFlight';
import type { FoundFacts, RevocationFacts } from './facts';

/** With Redis away an isolate asks D1 about a session at most this often. */
const LIFE_MS = 1_000;

/** What D1 said about sessions a moment ago, and the lookups under way: plain data, shared by the requests of an isolate. */
export class RevocationMemo {
  readonly singleFlight = new FreshSingleFlight<FoundFacts>();
  readonly #known = new BoundedMap<string, { facts: RevocationFacts; askedAtMs: number }>(5_000);

  /** `undefined` when D1 has to be asked. */
  get(sessionId: string, nowMs: number): RevocationFacts | undefined {
    const known = this.#known.get(sessionId);
    return known !== undefined && Math.abs(nowMs - known.askedAtMs) < LIFE_MS ? known.facts : undefined;
  }

  /** @param askedAtMs when D1 was asked: the facts are no newer than that, however late the response came */
  set(sessionId: string, facts: RevocationFacts, askedAtMs: number): void {
    const known = this.#known.get(sessionId);
    if (known === undefined || known.askedAtMs <= askedAtMs) this.#known.set(sessionId, { facts, askedAtMs });
  }
}
