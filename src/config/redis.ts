/** `unknown`: this isolate has had no response from Redis yet. */
export type RedisAvailability = 'unknown' | 'up' | 'down';

let availability: RedisAvailability = 'unknown';

/** This isolate's last knowledge of Redis, without a call. The breaker writes it; any code may read it. */
export function redisAvailability(): RedisAvailability {
  return availability;
}

/**
 * Whether Redis has responded to this isolate and its breaker is closed.
 *
 * It is also `false` before the first response, which is safe for code that must not assume Redis. Do not skip a call because
 * of it: an isolate learns the state from its calls. While Redis is known to be down, calls fail at once and without a request;
 * {@link redisAvailability} distinguishes the two.
 */
export function isRedisAvailable(): boolean {
  return availability === 'up';
}

/** Only the isolate's breaker calls this. */
export function setRedisAvailable(available: boolean): void {
  availability = available ? 'up' : 'down';
}
