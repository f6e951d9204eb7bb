import { Remembered, isWithin } from '../memory/remembered';
import type { CacheKey, Snapshot } from './entry';
import type { SingleFlight } from './singleFlight';

interface Kept {
  readonly key: CacheKey;
  readonly snapshot: Snapshot;
  /** The generation of this isolate's own invalidations when Redis was asked. */
  readonly generation: number;
}

/** Entries that Redis had recently, for reads that accept bounded staleness. */
export class EntryMemory {
  readonly #kept = new Remembered<Kept>({ maxEntries: 5_000, maxBytes: 16 * 2 ** 20 });

  get size(): number {
    return this.#kept.size;
  }

  get bytes(): number {
    return this.#kept.bytes;
  }

  /** Remembers the entry that Redis returned. Misses are not remembered. */
  note(key: CacheKey, snapshot: Snapshot): void {
    const { entry, seen } = snapshot;
    if (seen === undefined) return;
    if (entry === undefined) this.#kept.delete(key.entryKey);
    else {
      const value = { key, snapshot, generation: seen.generation };
      const size = entry.json.length + key.tagVersionKeys.reduce((sum, name) => sum + name.length + 20, 100);
      this.#kept.set(key.entryKey, value, seen.askedAtMs, size);
    }
  }

  /**
   * A fresh entry that Redis had at most `withinMs` ago, and that this isolate has not invalidated since.
   *
   * @returns the entry, with the time at which Redis was asked
   */
  get(
    key: CacheKey,
    { withinMs, nowMs, singleFlight }: { withinMs: number; nowMs: number; singleFlight: SingleFlight },
  ): { snapshot: Snapshot; askedAtMs: number } | undefined {
    const kept = this.#kept.get(key.entryKey);
    if (kept === undefined || !isWithin(kept.askedAtMs, withinMs, nowMs)) return undefined;
    const { snapshot, generation } = kept.value;
    if (snapshot.entry === undefined || snapshot.entry.softExpiryMs <= nowMs || !isSame(kept.value.key, key)) {
      return undefined;
    }
    if (singleFlight.generationOf([key.entryKey, ...key.tagVersionKeys]) > generation) return undefined;
    return { snapshot, askedAtMs: kept.askedAtMs };
  }
}

/** The cached value may belong to a key with the same hash, or with other tags. */
function isSame(a: CacheKey, b: CacheKey): boolean {
  if (a.canonical !== b.canonical || a.tagVersionKeys.length !== b.tagVersionKeys.length) return false;
  return a.tagVersionKeys.every((name, index) => name === b.tagVersionKeys[index]);
}
