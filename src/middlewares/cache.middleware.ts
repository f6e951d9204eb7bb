import type { Context } from 'hono';

import { CacheService } from '../services/cache.service';
import type { CacheKey } from '../services/cache.service';
import type { AuthVariables } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';

type Authenticated = Context<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & AuthVariables }>;

/**
 * Names the cache entries that the handler will want, so that they travel with the checks. The handler's own call finds
 * them; without `reads` it would fetch them itself. Stands after `authenticate()`.
 *
 * @example
 * guard(authenticate(), reads((c) => UserService.keyOf(c.var.auth.userId)))
 */
export function reads(keysOf: (c: Authenticated) => CacheKey | readonly CacheKey[]): Check {
  return check({
    name: 'reads()',
    requires: 'auth',
    prepare(c) {
      const wanted = keysOf(c as unknown as Authenticated);
      for (const key of Array.isArray(wanted) ? (wanted as readonly CacheKey[]) : [wanted as CacheKey]) {
        CacheService.prefetch(key);
      }
      return undefined;
    },
  });
}
