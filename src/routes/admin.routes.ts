import { Hono } from 'hono';

import type { ServedRoute } from '../middlewares/mountedLimiters';
import type { AppEnv } from '../middlewares/services.middleware';
import { auditRoutes } from './admin/audit.routes';
import { cacheRoutes } from './admin/cache.routes';
import { adminLimitRoutes } from './admin/limits.routes';
import { metricsRoutes } from './admin/metrics.routes';
import { settingsRoutes } from './admin/settings.routes';
import { adminUserRoutes } from './admin/users.routes';

/** @param routesOf the app's routes, once all are mounted */
export const adminRoutes = (routesOf: () => readonly ServedRoute[]) =>
  new Hono<AppEnv>()
    .route('/', adminUserRoutes)
    .route('/', adminLimitRoutes(routesOf))
    .route('/', cacheRoutes)
    .route('/', metricsRoutes)
    .route('/', settingsRoutes)
    .route('/', auditRoutes);
