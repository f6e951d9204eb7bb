/** `unknown`: this isolate has had no response from Redis yet. */
export type RedisAvailability = 'unknown' | 'up' | 'down';

let availability: RedisAvailability = 'unknown';

/** What this isolate knows about Redis, without asking it. The breaker writes it; anything may read it. */
export function redisAvailability(): RedisAvailability {
  return availability;
}

/**
 * Whether Redis has responded to this isolate and its breaker is closed.
 *
 * `false` before the first response, too: code that must not assume Redis is safe with that. It is no reason to skip a
 * call, which is how an isolate finds out. While Redis is known to be down, calls fail at once and without a request;
 * {@link redisAvailability} tells the two apart.
 */
export function isRedisAvailable(): boolean {
  return availability === 'up';
}

/** For the isolate's breaker alone. */
export function setRedisAvailable(available: boolean): void {
  availability = available ? 'up' : 'down';
}
