import { Hono } from 'hono';

import { onError } from '../../../../src/middlewares/error.middleware';
import { services } from '../../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../../src/middlewares/services.middleware';
import { CacheService } from '../../../../src/services/cache.service';
import { TTL_SECONDS, addRoutes } from './routes.ts';
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
  readTagged: async ({ key, load }, tags) =>
    found(await CacheService.query({ namespace, args: key, tags, ttlSeconds: TTL_SECONDS }, load)),
  readMany: (lookups) => Promise.all(lookups.map(read)),
  forget: (key) => CacheService.invalidate({ keys: [CacheService.keyOf({ namespace, args: key })] }),
  invalidateTag: (tag) => CacheService.invalidate({ tags: [tag] }),
};

const app = new Hono<AppEnv>();
app.use(services());
addRoutes(app, () => contender);
app.onError(onError);

export default app;
