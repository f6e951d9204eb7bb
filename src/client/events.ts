import type { User } from './contract.ts';

/**
 * Why a session ended: `signed-out` by this client, `elsewhere` by another tab or process, `replaced` by another sign-in,
 * `revoked` (from another device, by a new password, by an administrator), `reused` (a refresh token was used twice: one
 * of its holders is a thief), `expired`, `invalid` (the server does not know the token).
 */
export type SignedOutReason = 'signed-out' | 'elsewhere' | 'replaced' | 'revoked' | 'reused' | 'expired' | 'invalid';

export interface ClientEvents {
  /** `user` is absent when another tab or process has signed in. */
  signedIn: { user?: User };
  signedOut: { reason: SignedOutReason };
  tokenRefreshed: object;
}

export type Listener<K extends keyof ClientEvents> = (event: ClientEvents[K]) => void;

export interface Emitter {
  on<K extends keyof ClientEvents>(name: K, listener: Listener<K>): () => void;
  emit<K extends keyof ClientEvents>(name: K, event: ClientEvents[K]): void;
}

export function createEmitter(): Emitter {
  const listeners = new Map<string, Set<(event: never) => void>>();
  return {
    on(name, listener) {
      const of = listeners.get(name) ?? new Set();
      listeners.set(name, of.add(listener));
      return () => void of.delete(listener);
    },
    emit(name, event) {
      // In a turn of its own: an exception in a listener is the app's, and must not break a refresh.
      for (const listener of listeners.get(name) ?? []) queueMicrotask(() => listener(event as never));
    },
  };
}
