import type { SessionStorage } from './storage.ts';

interface WebLocks {
  request<T>(name: string, options: { signal: AbortSignal }, work: () => Promise<T>): Promise<T>;
}

/** A holder that hangs, such as a tab that the browser has frozen, holds up the others for so long. */
const LOCK_WAIT_MS = 20_000;

/** One after the other, by storage. */
function createQueue() {
  const tails = new WeakMap<SessionStorage, Promise<unknown>>();
  return function enqueue<T>(storage: SessionStorage, work: () => Promise<T>): Promise<T> {
    const result = (tails.get(storage) ?? Promise.resolve()).then(work);
    tails.set(
      storage,
      result.catch(() => undefined),
    );
    return result;
  };
}

const networkQueue = createQueue();
const storageQueue = createQueue();

/**
 * Runs work that exchanges tokens: one at a time for a storage, also across tabs (Web Locks) and processes (the storage's
 * own lock). After {@link LOCK_WAIT_MS} it runs without the Web Lock: two refreshes at once get the same successor from
 * the server, and only one of them is stored.
 */
export function exclusively<T>(storage: SessionStorage, work: () => Promise<T>): Promise<T> {
  return networkQueue(storage, async () => {
    if (storage.lock !== undefined) return storage.lock(work);
    const locks = (globalThis as { navigator?: { locks?: WebLocks } }).navigator?.locks;
    if (storage.lockName === undefined || locks === undefined) return work();
    const waiting = new AbortController();
    let entered = false;
    const timer = setTimeout(() => waiting.abort(), LOCK_WAIT_MS);
    try {
      return await locks.request(storage.lockName, { signal: waiting.signal }, () => {
        entered = true;
        clearTimeout(timer);
        return work();
      });
    } catch (error) {
      if (entered) throw error;
      // Not granted in time, or Web Locks are refused here (an opaque origin).
      return work();
    } finally {
      clearTimeout(timer);
    }
  });
}

/** {@link SessionStorage.replace}, for storages without one atomic among the clients of this process. */
export function replaceIn(storage: SessionStorage, expected: string | null, value: string | null): Promise<boolean> {
  return storageQueue(storage, async () => {
    if (storage.replace !== undefined) return storage.replace(expected, value);
    if ((await storage.read()) !== expected) return false;
    await storage.write(value);
    return true;
  });
}

/** Writes whatever is there, in order with {@link replaceIn}. @returns what was there */
export function writeTo(storage: SessionStorage, value: string | null): Promise<string | null> {
  return storageQueue(storage, async () => {
    const before = await storage.read();
    await storage.write(value);
    return before;
  });
}
