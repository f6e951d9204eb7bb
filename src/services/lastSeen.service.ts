import type { BoundedMap } from '../util/boundedMap';
import type { RedisBatch } from '../redis/batch';
import type { Keys } from '../redis/keys';
import { sessionSeen } from '../redis/scripts/sessionSeen';
import { facade } from './scope';
import type { AccessClaims } from './token/accessToken';

/** When an isolate last told Redis that a session is in use, by session. */
export type LastSeenMemo = BoundedMap<string, { generation: number; atMs: number }>;

/** Last seen is written at most this often by an isolate. */
const TOUCH_MS = 60_000;

/** Who was here. Apart from the sessions' service, because every authenticated request needs it and nothing else of that. */
export interface LastSeenService {
  /**
   * Notes, after the answer, that a token of this session was shown; the first one of a generation confirms that its
   * refresh token has arrived.
   */
  note(claims: AccessClaims): void;
}

declare module './scope' {
  interface ServiceMap {
    lastSeen: LastSeenService;
  }
}

export const LastSeenService: LastSeenService = facade('lastSeen');

export interface LastSeenDeps {
  batch: RedisBatch;
  keys: Keys;
  lastSeenMemo: LastSeenMemo;
  now: () => number;
}

export function createLastSeenService({ batch, keys, lastSeenMemo, now }: LastSeenDeps): LastSeenService {
  return {
    note({ sessionId, generation }) {
      const known = lastSeenMemo.get(sessionId);
      if (known !== undefined && known.generation >= generation && now() - known.atMs < TOUCH_MS) return;
      lastSeenMemo.set(sessionId, { generation, atMs: now() });
      // What did not arrive is tried again with the next request: it confirms the generation.
      batch.deferRun(sessionSeen, [keys.session(sessionId)], [generation]).catch(() => lastSeenMemo.delete(sessionId));
    },
  };
}
