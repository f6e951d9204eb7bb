import type { BoundedMap } from '../redis/boundedMap';
import type { RedisBatch } from '../redis/batch';
import type { Keys } from '../redis/keys';
import { sessionTouch } from '../redis/scripts/sessionTouch';
import { facade } from './scope';
import type { AccessClaims } from './token/accessToken';

/** When an isolate last told Redis that a session is in use, by session. */
export type TouchMemo = BoundedMap<string, { generation: number; atMs: number }>;

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
  touched: TouchMemo;
  now: () => number;
}

export function createLastSeenService({ batch, keys, touched, now }: LastSeenDeps): LastSeenService {
  return {
    note({ sessionId, generation }) {
      const known = touched.get(sessionId);
      if (known !== undefined && known.generation >= generation && now() - known.atMs < TOUCH_MS) return;
      touched.set(sessionId, { generation, atMs: now() });
      // What did not arrive is tried again with the next request: it confirms the generation.
      batch.deferRun(sessionTouch, [keys.session(sessionId)], [generation]).catch(() => touched.delete(sessionId));
    },
  };
}
