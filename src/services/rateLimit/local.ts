import { admits, advance } from './window';
import type { WindowLimit, WindowState } from './window';

/** A bounded map that forgets what was used least recently. Plain data only: it lives as long as the isolate. */
export class BoundedMap<K, V> {
  readonly #entries = new Map<K, V>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  set(key: K, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= this.#max) return;
    const oldest = this.#entries.keys().next();
    if (oldest.done !== true) this.#entries.delete(oldest.value);
  }

  delete(key: K): void {
    this.#entries.delete(key);
  }
}

/** The sliding window in this isolate's memory: what limits while Redis is away, with the same numbers. */
export class LocalLimiter {
  readonly #windows = new BoundedMap<string, WindowState>(10_000);

  consume(key: string, limit: WindowLimit, cost: number, nowMs: number): { allowed: boolean; state: WindowState } {
    const state = advance(this.#windows.get(key), nowMs, limit.windowMs);
    const allowed = admits(state, limit, cost);
    if (allowed) state.current += cost;
    this.#windows.set(key, state);
    return { allowed, state };
  }

  reset(key: string): void {
    this.#windows.delete(key);
  }

  refund(key: string, index: number, cost: number): void {
    const state = this.#windows.get(key);
    if (state === undefined) return;
    if (state.index === index) state.current = Math.max(0, state.current - cost);
    else if (state.index === index + 1) state.previous = Math.max(0, state.previous - cost);
  }
}
