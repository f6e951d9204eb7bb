type Awaitable<T> = T | Promise<T>;

/**
 * Where the session is kept: one text under one key, so that its two tokens are always of one response. A method that
 * throws makes the call fail and changes nothing: a locked keychain is not a sign-out.
 */
export interface SessionStorage {
  read(): Awaitable<string | null>;
  /** `null` removes it. */
  write(value: string | null): Awaitable<void>;
  /**
   * Atomically writes `value` if the present value is `expected`, and returns whether it was. Needed where processes
   * share a storage without a {@link lock}; otherwise the client reads, compares and writes.
   */
  replace?(expected: string | null, value: string | null): Awaitable<boolean>;
  /** Runs `work` while no other process runs work of this storage. */
  lock?<T>(work: () => Promise<T>): Promise<T>;
  /** Name of the Web Lock that the tabs which share this storage take, where there are Web Locks and no {@link lock}. */
  readonly lockName?: string;
  /** Calls `changed` when another tab or process has written. */
  subscribe?(changed: () => void): void;
}

/** For servers and tests: the session ends with the process. */
export function memoryStorage(): SessionStorage {
  let held: string | null = null;
  return {
    read: () => held,
    write: (value) => void (held = value),
  };
}

/** The part of the Web Storage API that is used. */
export interface WebStorageArea {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

interface Page {
  localStorage?: WebStorageArea;
  addEventListener?(type: 'storage', listener: (event: { key: string | null }) => void): void;
}

/**
 * Web storage, shared by all tabs of an origin.
 *
 * @param area `localStorage` by default; `sessionStorage` keeps a session for each tab
 */
export function webStorage(key = 'gatehouse', area = (globalThis as Page).localStorage): SessionStorage {
  if (area === undefined) throw new TypeError('webStorage(): there is no localStorage here');
  const write = (value: string | null) => (value === null ? area.removeItem(key) : area.setItem(key, value));
  return {
    read: () => area.getItem(key),
    write,
    replace(expected, value) {
      if (area.getItem(key) !== expected) return false;
      write(value);
      return true;
    },
    lockName: `gatehouse:${key}`,
    subscribe(changed) {
      (globalThis as Page).addEventListener?.('storage', (event) => {
        // `null`: the whole area was cleared.
        if (event.key === key || event.key === null) changed();
      });
    },
  };
}

/** A key-value store with promises, as Keychain, Keystore and AsyncStorage modules have it. */
export interface AsyncStore {
  getItem(key: string): Promise<string | null>;
  setItem(key: string, value: string): Promise<unknown>;
  removeItem(key: string): Promise<unknown>;
}

/**
 * Keychain, Keystore, AsyncStorage, expo-secure-store.
 *
 * @example
 * import * as SecureStore from 'expo-secure-store';
 * asyncStorage({
 *   getItem: SecureStore.getItemAsync,
 *   setItem: SecureStore.setItemAsync,
 *   removeItem: SecureStore.deleteItemAsync,
 * });
 */
export function asyncStorage(store: AsyncStore, key = 'gatehouse'): SessionStorage {
  return {
    read: () => store.getItem(key),
    async write(value) {
      await (value === null ? store.removeItem(key) : store.setItem(key, value));
    },
  };
}
