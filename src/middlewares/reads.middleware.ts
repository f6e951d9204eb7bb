import type { Context } from 'hono';

import { CacheService } from '../services/cache.service';
import type { CacheKey, CachedRows } from '../services/cache.service';
import { contextWith } from './appEnv';
import type { ContextWith } from './appEnv';
import type { AuthVariables } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';

/** An entry by its key, or a cached read that has one. */
type Readable = CacheKey | Pick<CachedRows<unknown>, 'key'>;

/**
 * Names the cache entries that the handler will read, so that they are fetched in the checks' pipeline. The handler's own call
 * then finds them; without `reads` it costs a round trip of its own. Put it after `authenticate()`.
 *
 * @example
 * guard(authenticate(), reads((c) => UserService.keyOf(c.var.auth.userId)))
 */
export function reads(wantedBy: (c: ContextWith<AuthVariables>) => Readable | readonly Readable[]): Check {
  function keysOf(c: Context<AppEnv>): CacheKey[] {
    const wanted = wantedBy(contextWith<AuthVariables>(c));
    const all = Array.isArray(wanted) ? (wanted as readonly Readable[]) : [wanted as Readable];
    return all.map((one) => ('key' in one ? one.key : one));
  }

  return check({
    name: 'reads()',
    requires: 'auth',
    prepare(c, withinMs) {
      CacheService.prefetch(keysOf(c), withinMs);
      return undefined;
    },
    recall: (c, withinMs) => CacheService.recall(keysOf(c), withinMs),
  });
}
