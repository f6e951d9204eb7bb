import { Hono } from 'hono';

import { validQuery } from '../../middlewares/body.middleware';
import type { AppEnv } from '../../middlewares/services.middleware';
import { MetricsService } from '../../services/metrics.service';
import { presentOverview } from '../metrics';
import { metricsSchema } from '../schemas';
import { adminOnly } from './only';

export const metricsRoutes = new Hono<AppEnv>().get('/metrics', adminOnly(), validQuery(metricsSchema), async (c) => {
  const { range, since } = c.req.valid('query');
  return c.json(
    presentOverview(await MetricsService.overview(range, since === undefined ? undefined : since * 1_000)),
    200,
  );
});
