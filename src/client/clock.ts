import type { TokenPair } from './contract.ts';
import type { Session } from './types.ts';

/** An access token is renewed this long before it expires, or a tenth of its life, whichever is shorter. */
const MARGIN_MS = 30_000;

/**
 * The server's time, from its `Date` header and a monotonic clock. The device's own clock is never asked: it may be days
 * off. Where the server's time is not known, tokens are used until the server says `TOKEN_EXPIRED`.
 */
export interface Clock {
  /** Milliseconds from an arbitrary start. */
  now(): number;
  observe(headers: Headers): void;
  /** When the access token of a response that has just arrived expires, by the server's time. */
  expiryOf(pair: TokenPair): number | undefined;
  isExpiring(session: Session): boolean;
}

export function createClock(now: () => number): Clock {
  /** Server's time minus {@link now}. */
  let offsetMs: number | undefined;
  /** The token that this client was given last, timed without the server's clock. */
  let received: { accessToken: string; renewAtMs: number } | undefined;
  const marginOf = (lifeMs: number) => Math.min(MARGIN_MS, lifeMs / 10);

  return {
    now,
    observe(headers) {
      // A proxy's or a captive portal's clock is not the server's.
      if (!headers.has('X-Request-Id')) return;
      const ageMs = Number(headers.get('Age') ?? 0) * 1_000;
      const serverMs = Date.parse(headers.get('Date') ?? '') + ageMs;
      if (!Number.isNaN(serverMs)) offsetMs = serverMs - now();
    },
    expiryOf({ access_token, expires_in }) {
      const lifeMs = expires_in * 1_000;
      received = { accessToken: access_token, renewAtMs: now() + lifeMs - marginOf(lifeMs) };
      return offsetMs === undefined ? undefined : now() + offsetMs + lifeMs;
    },
    isExpiring({ access_token, expires_in, expires_at }) {
      if (received?.accessToken === access_token) return now() >= received.renewAtMs;
      if (offsetMs === undefined || expires_at === undefined) return false;
      return now() + offsetMs >= expires_at - marginOf(expires_in * 1_000);
    },
  };
}
