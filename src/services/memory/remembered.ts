/** A reply is refreshed after this share of the time for which it may be used: before it expires. */
const DUE_SHARE = 0.75;

/** Whether a reply to a question sent at `askedAtMs` may still be used. */
export function isWithin(askedAtMs: number, withinMs: number, nowMs: number): boolean {
  const ageMs = nowMs - askedAtMs;
  // If the clock was set back, the reply is older than it seems.
  return ageMs >= 0 && ageMs < withinMs;
}

/** Whether to ask again, for a caller with further requests. */
export function isDue(askedAtMs: number, withinMs: number, nowMs: number): boolean {
  return nowMs - askedAtMs >= withinMs * DUE_SHARE;
}

interface Kept<T> {
  readonly value: T;
  /** When the question was sent: the reply may be that old. */
  readonly askedAtMs: number;
  readonly bytes: number;
}

export interface RememberedOptions {
  maxEntries: number;
  maxBytes: number;
}

/** Redis's replies, by question: plain data, bounded by count and size. The least recently used is evicted first. */
export class Remembered<T> {
  readonly #kept = new Map<string, Kept<T>>();
  readonly #max: RememberedOptions;
  #bytes = 0;

  constructor(max: RememberedOptions) {
    this.#max = max;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** An estimate. */
  get bytes(): number {
    return this.#bytes;
  }

  get(question: string): Kept<T> | undefined {
    const kept = this.#kept.get(question);
    if (kept === undefined) return undefined;
    this.#kept.delete(question);
    this.#kept.set(question, kept);
    return kept;
  }

  /** A reply to an older question does not replace a newer one. @param size of the value, in characters */
  set(question: string, value: T, askedAtMs: number, size: number): void {
    const known = this.#kept.get(question);
    if (known !== undefined && known.askedAtMs > askedAtMs) return;
    this.delete(question);
    const bytes = OVERHEAD_BYTES + 2 * (question.length + size);
    if (bytes > this.#max.maxBytes / 8) return;
    this.#kept.set(question, { value, askedAtMs, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#max.maxEntries && this.#bytes <= this.#max.maxBytes) break;
      this.delete(oldest);
    }
  }

  delete(question: string): void {
    const kept = this.#kept.get(question);
    if (kept === undefined) return;
    this.#kept.delete(question);
    this.#bytes -= kept.bytes;
  }
}

/** The size of an entry apart from its strings, in bytes: a rough measurement, rounded up. */
const OVERHEAD_BYTES = 300;
