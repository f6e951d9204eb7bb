import { Hono } from 'hono';

import { AppError } from './errors';
import { notifyingAfterResponse } from './middlewares/afterResponse';
import { jsonBody } from './middlewares/body.middleware';
import { browserOrigins } from './middlewares/cors.middleware';
import { onError, problem } from './middlewares/error.middleware';
import type { ServedRoute } from './middlewares/mountedLimiters';
import { readOnly } from './middlewares/readOnly.middleware';
import { responseHeaders } from './middlewares/responseHeaders.middleware';
import { services } from './middlewares/services.middleware';
import type { AppEnv, ServicesOptions } from './middlewares/services.middleware';
import { adminRoutes } from './routes/admin.routes';
import { authRoutes } from './routes/auth.routes';
import { healthRoutes } from './routes/health.routes';
import { metricsRoutes } from './routes/metrics.routes';
import { recoveryRoutes } from './routes/recovery.routes';
import { RememberingRouter } from './routes/router';
import { sessionRoutes } from './routes/sessions.routes';
import { userRoutes } from './routes/users.routes';
import { warmingRoutes } from './routes/warming.routes';
import { wellKnownRoutes } from './routes/wellKnown.routes';

/**
 * The application. Your own routes go where `/v1/users` is.
 *
 * @param options tests replace the isolate's state and clock with them
 */
export function createApp(options: ServicesOptions = {}) {
  let routesOf: () => readonly ServedRoute[] = () => [];
  const app = new Hono<AppEnv>({ router: new RememberingRouter() })
    .use(responseHeaders())
    .use(browserOrigins())
    .use(services(options))
    .use(readOnly())
    .use(jsonBody({ forms: ['/v1/auth/revoke'] }))
    .route('/', healthRoutes)
    .route('/', metricsRoutes)
    .route('/.well-known', wellKnownRoutes)
    .route('/v1/auth', authRoutes)
    .route('/v1/auth', recoveryRoutes)
    .route('/v1/sessions', sessionRoutes)
    .route('/v1/users', userRoutes)
    .route(
      '/v1/admin',
      adminRoutes(() => routesOf()),
    )
    .route('/v1/admin/warming', warmingRoutes);

  routesOf = () => app.routes;
  app.onError(onError);
  app.notFound((c) => {
    const allowed = methodsOf(app, c.req.path);
    if (allowed.length > 0) {
      return problem(c, new AppError('METHOD_NOT_ALLOWED', { headers: { Allow: allowed.join(', ') } }));
    }
    const path = c.req.path.replace(/\/+$/, '');
    const isMeant = path !== c.req.path && path !== '' && methodsOf(app, path).length > 0;
    return problem(c, new AppError('NOT_FOUND', isMeant ? { detail: 'Paths end without a slash.' } : {}));
  });
  app.fetch = notifyingAfterResponse(app.fetch);
  return app;
}

/** The methods that this path has a route for. */
function methodsOf(app: Pick<Hono<AppEnv>, 'router'>, path: string): string[] {
  return ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].filter((method) =>
    app.router.match(method, path)[0].some(([[, route]]) => route.method === method),
  );
}
