import type { BoundedMap } from '../util/boundedMap';
import type { RedisBatch } from '../redis/batch';
import type { Keys } from '../redis/keys';
import { sessionSeen } from '../redis/scripts/sessionSeen';
import { facade } from './scope';
import type { AccessClaims } from './token/accessToken';

/** When an isolate last wrote to Redis that a session is in use, by session. */
export type LastSeenMemo = BoundedMap<string, { generation: number; atMs: number }>;

/** An isolate writes a session's last use at most this often. */
const TOUCH_MS = 60_000;

/**
 * Records the use of sessions. Separate from the session service, because every authenticated request needs only this part.
 */
export interface LastSeenService {
  /**
   * Records, after the response, that a token of this session was used. The first use in a generation confirms that the
   * client has received its refresh token.
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
    note({ sessionId, generation, epoch }) {
      const known = lastSeenMemo.get(sessionId);
      if (known !== undefined && known.generation >= generation && now() - known.atMs < TOUCH_MS) return;
      lastSeenMemo.set(sessionId, { generation, atMs: now() });
      // If the write fails, the next request tries again, because it also confirms the generation.
      batch
        .deferRun(sessionSeen, [keys.session(sessionId)], [generation, epoch])
        .catch(() => lastSeenMemo.delete(sessionId));
    },
  };
}
