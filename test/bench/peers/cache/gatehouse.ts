import { Hono } from 'hono';

import { onError } from '../../../../src/middlewares/error.middleware';
import { services } from '../../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../../src/middlewares/services.middleware';
import { CacheService } from '../../../../src/services/cache.service';
import { STALE_AFTER_SECONDS, STALE_FOR_SECONDS, TTL_SECONDS, addRoutes } from './routes.ts';
import type { Contender, Value } from './routes.ts';

const namespace = 'bench';

/** The entry was not there and nor was its source. */
function found(value: Value | null): Value {
  if (value === null) throw new Error('no value');
  return value;
}

const read: Contender['read'] = async ({ key, load }) =>
  found(await CacheService.query({ namespace, args: key, ttlSeconds: TTL_SECONDS }, load));

const contender: Contender = {
  read,
  readStale: async ({ key, load }) => {
    const life = { ttlSeconds: STALE_AFTER_SECONDS, staleSeconds: STALE_FOR_SECONDS };
    return found(await CacheService.query({ namespace, args: key, ...life }, load));
  },
  readTagged: async ({ key, load }, tags) =>
    found(await CacheService.query({ namespace, args: key, tags, ttlSeconds: TTL_SECONDS }, load)),
  async readMany(lookups) {
    const requests = lookups.map(({ key, load }) => ({ namespace, args: key, ttlSeconds: TTL_SECONDS, load }));
    const values = await CacheService.getMany(requests, (missing) => Promise.all(missing.map(({ load }) => load())));
    return values.map(found);
  },
  forget: (key) => CacheService.invalidate({ keys: [CacheService.keyOf({ namespace, args: key })] }),
  invalidateTag: (tag) => CacheService.invalidate({ tags: [tag] }),
};

const app = new Hono<AppEnv>();
app.use(services());
addRoutes(app, () => contender);
app.onError(onError);

export default app;
