import { BoundedMap } from '../../redis/boundedMap';
import { admits, advance, consumed, settled } from './limits';
import type { Limit, LimitState } from './limits';

/** What a limiter says of one of its limits; `state` is the one before the request. */
export interface LimitVerdict {
  admitted: boolean;
  state: LimitState;
}

type Stored = ReadonlyMap<string, Pick<LimitState, 'a' | 'b' | 'c'>>;

const idOf = ({ algorithm, windowMs }: Limit) => `${algorithm} ${windowMs}`;

/**
 * The same limits in this isolate's memory, with the same numbers: what decides while Redis is away. Agrees with the
 * script on every step.
 */
export class LocalLimiter {
  readonly #entries = new BoundedMap<string, Stored>(10_000);
  /** What was admitted here and Redis does not know, by key. */
  readonly #unreported = new BoundedMap<string, { cost: number; atMs: number }>(10_000);

  consume(key: string, limits: readonly Limit[], cost: number, nowMs: number): LimitVerdict[] {
    const verdicts = this.peek(key, limits, cost, nowMs);
    if (cost === 0 || verdicts.some(({ admitted }) => !admitted)) return verdicts;
    this.#store(key, limits, (limit, index) => consumed(limit, stateAt(verdicts, index), cost));
    const before = this.#unreported.get(key)?.cost ?? 0;
    this.#unreported.set(key, { cost: before + cost, atMs: nowMs });
    return verdicts;
  }

  /** What {@link consume} would say. */
  peek(key: string, limits: readonly Limit[], cost: number, nowMs: number): LimitVerdict[] {
    const stored = this.#entries.get(key);
    return limits.map((limit) => {
      const state = advance(limit, stored?.get(idOf(limit)), nowMs);
      return { admitted: admits(limit, state, cost), state };
    });
  }

  /** Adds to what was charged (a negative cost gives back). */
  settle(key: string, limits: readonly Limit[], cost: number, chargedAtMs: number, nowMs: number): void {
    if (cost === 0) return;
    const verdicts = this.peek(key, limits, 0, nowMs);
    this.#store(key, limits, (limit, index) => settled(limit, stateAt(verdicts, index), cost, chargedAtMs));
    const unreported = this.#unreported.get(key);
    if (unreported !== undefined) unreported.cost = Math.max(0, unreported.cost + cost);
  }

  /** What Redis has to be told now that it is back, once; `undefined` when there is nothing. */
  takeUnreported(key: string): { cost: number; atMs: number } | undefined {
    const unreported = this.#unreported.get(key);
    if (unreported === undefined) return undefined;
    this.reset(key);
    return unreported.cost > 0 ? unreported : undefined;
  }

  reset(key: string): void {
    this.#entries.delete(key);
    this.#unreported.delete(key);
  }

  #store(key: string, limits: readonly Limit[], next: (limit: Limit, index: number) => LimitState): void {
    const others = this.#entries.get(key) ?? [];
    this.#entries.set(
      key,
      new Map([...others, ...limits.map((limit, index) => [idOf(limit), next(limit, index)] as const)]),
    );
  }
}

function stateAt(verdicts: readonly LimitVerdict[], index: number): LimitState {
  const verdict = verdicts[index];
  if (verdict === undefined) throw new Error('a limit without a verdict');
  return verdict.state;
}
