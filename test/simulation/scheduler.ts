/** Simulated time begins here (in the year 2027), whatever the machine's clock says. */
export const BEGIN_MS = 1_800_000_000_000;

interface Event {
  atMs: number;
  /** Of two events of one time the one that was planned first comes first. */
  order: number;
  run: () => void;
  cancelled: boolean;
}

/**
 * The time of the simulated world, and everything that is going to happen in it: one event at a time, and no next one
 * until all code that the event has set going waits for something.
 */
export class Scheduler {
  nowMs = BEGIN_MS;
  steps = 0;
  #order = 0;
  readonly #heap: Event[] = [];

  /** @returns cancels it */
  at(atMs: number, run: () => void): () => void {
    const event: Event = { atMs: Math.max(atMs, this.nowMs), order: (this.#order += 1), run, cancelled: false };
    this.#push(event);
    return () => {
      event.cancelled = true;
    };
  }

  after(ms: number, run: () => void): () => void {
    return this.at(this.nowMs + Math.max(0, ms), run);
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(ms, resolve);
    });
  }

  /** Lets everything happen until then. */
  async runUntil(untilMs: number): Promise<void> {
    for (let event = this.#heap[0]; event !== undefined && event.atMs <= untilMs; event = this.#heap[0]) {
      this.#pop();
      if (event.cancelled) continue;
      this.nowMs = event.atMs;
      this.steps += 1;
      event.run();
      await quiescence();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!before(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

const before = (a: Event, b: Event) => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

/** All promises that could go on have: the event loop turns only once no microtask is left. */
function quiescence(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
