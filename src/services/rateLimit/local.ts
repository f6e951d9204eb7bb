import { BoundedMap } from '../../redis/boundedMap';
import { admits, advance } from './window';
import type { WindowLimit, WindowState } from './window';

/** The sliding window in this isolate's memory: what limits while Redis is away, with the same numbers. */
export class LocalLimiter {
  readonly #windows = new BoundedMap<string, WindowState>(10_000);

  consume(key: string, limit: WindowLimit, cost: number, nowMs: number): { allowed: boolean; state: WindowState } {
    const state = advance(this.#windows.get(key), nowMs, limit.windowMs);
    const allowed = admits(state, limit, cost);
    if (allowed) {
      state.current += cost;
      this.#windows.set(key, state);
    }
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
