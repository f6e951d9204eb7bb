import { Hono } from 'hono';

import { isRedisAvailable } from '../config/redis';
import type { AppEnv } from '../middlewares/services.middleware';
import { HealthService } from '../services/health.service';

export const healthRoutes = new Hono<AppEnv>()
  /** The process: answers as long as the Worker runs. */
  .get('/health', (c) => c.json({ status: 'ok' as const, redisAvailable: isRedisAvailable() }, 200))
  /** The dependencies. 200 while the app can serve anybody. */
  .get('/ready', async (c) => {
    const readiness = await HealthService.readiness();
    return c.json(readiness, readiness.status === 'unready' ? 503 : 200);
  });
