import type { Context } from 'hono';

import { CacheService } from '../services/cache.service';
import type { CacheKey, CachedRows } from '../services/cache.service';
import type { AuthVariables } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';

type Authenticated = Context<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & AuthVariables }>;

/** An entry by its key, or a cached read that has one. */
type Readable = CacheKey | Pick<CachedRows<unknown>, 'key'>;

/**
 * Names the cache entries that the handler will want, so that they travel with the checks. The handler's own call finds
 * them; without `reads` it would fetch them itself. Stands after `authenticate()`.
 *
 * @example
 * guard(authenticate(), reads((c) => UserService.keyOf(c.var.auth.userId)))
 */
export function reads(wantedBy: (c: Authenticated) => Readable | readonly Readable[]): Check {
  return check({
    name: 'reads()',
    requires: 'auth',
    prepare(c) {
      const wanted = wantedBy(c as unknown as Authenticated);
      const all = Array.isArray(wanted) ? (wanted as readonly Readable[]) : [wanted as Readable];
      CacheService.prefetch(all.map((one) => ('key' in one ? one.key : one)));
      return undefined;
    },
  });
}
