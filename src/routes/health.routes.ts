import { Hono } from 'hono';

import { version } from '../../package.json';
import type { AppEnv } from '../middlewares/services.middleware';
import { HealthService } from '../services/health.service';

const INDEX = { name: 'Gatehouse', version, documentation: '/docs', contract: '/openapi.json' };

export const healthRoutes = new Hono<AppEnv>()
  .get('/', (c) => c.json(INDEX, 200))
  /** The process: responds as long as the Worker runs. Its state of Redis is this isolate's last knowledge. */
  .get('/health', (c) => c.json({ status: 'ok' as const, ...HealthService.redis() }, 200))
  /** The dependencies. 200 while the app can serve requests. */
  .get('/ready', async (c) => {
    const readiness = await HealthService.readiness();
    return c.json(readiness, readiness.status === 'unready' ? 503 : 200);
  });
