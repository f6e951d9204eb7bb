import { Hono } from 'hono';

import { onError } from '../../../../src/middlewares/error.middleware';
import { guard } from '../../../../src/middlewares/guard.middleware';
import { rateLimiter } from '../../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../../src/middlewares/services.middleware';
import { maxRequests, windowMs, withinMs } from './numbers.ts';

const app = new Hono<AppEnv>();

app.use(services());
app.get(
  '/:identity',
  guard(
    { within: withinMs },
    rateLimiter({ name: 'bench', maxRequests, windowMs, identity: (c) => c.req.param('identity') ?? '' }),
  ),
  (c) => c.text('ok'),
);
app.onError(onError);

export default app;
