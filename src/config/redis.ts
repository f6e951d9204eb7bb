/**
 * Whether this isolate thinks that Redis answers. A plain flag: the breaker writes it, anything may read it.
 */
let available = true;

/** `false` while the breaker is open: calls to Redis then fail at once, without a request. */
export function isRedisAvailable(): boolean {
  return available;
}

/** For the breaker alone. */
export function setRedisAvailable(value: boolean): void {
  available = value;
}
