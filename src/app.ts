import { Hono } from 'hono';
import { secureHeaders } from 'hono/secure-headers';

import { AppError } from './errors';
import { tellingAnswered } from './middlewares/answered';
import { jsonBody } from './middlewares/body.middleware';
import { noStore } from './middlewares/cacheControl.middleware';
import { browserOrigins } from './middlewares/cors.middleware';
import { onError, problem } from './middlewares/error.middleware';
import { requestId } from './middlewares/requestId.middleware';
import { services } from './middlewares/services.middleware';
import type { AppEnv, ServicesOptions } from './middlewares/services.middleware';
import { adminRoutes } from './routes/admin.routes';
import { authRoutes } from './routes/auth.routes';
import { healthRoutes } from './routes/health.routes';
import { recoveryRoutes } from './routes/recovery.routes';
import { sessionRoutes } from './routes/sessions.routes';
import { userRoutes } from './routes/users.routes';
import { warmingRoutes } from './routes/warming.routes';
import { wellKnownRoutes } from './routes/wellKnown.routes';

/**
 * The application. Your own routes go where `/v1/users` is.
 *
 * @param options what tests put in place of the isolate's own
 */
export function createApp(options: ServicesOptions = {}) {
  const app = new Hono<AppEnv>()
    .use(requestId())
    .use(noStore())
    .use(
      secureHeaders({
        contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
        // A native app's requests have no origin; a browser app's is listed in CORS_ORIGINS.
        crossOriginResourcePolicy: false,
      }),
    )
    .use(browserOrigins())
    .use(services(options))
    .use(jsonBody({ forms: ['/v1/auth/revoke'] }))
    .route('/', healthRoutes)
    .route('/.well-known', wellKnownRoutes)
    .route('/v1/auth', authRoutes)
    .route('/v1/auth', recoveryRoutes)
    .route('/v1/sessions', sessionRoutes)
    .route('/v1/users', userRoutes)
    .route('/v1/admin', adminRoutes)
    .route('/v1/admin/warming', warmingRoutes);

  app.onError(onError);
  app.notFound((c) => {
    const allowed = methodsOf(app, c.req.path);
    return allowed.length > 0
      ? problem(c, new AppError('METHOD_NOT_ALLOWED', { headers: { Allow: allowed.join(', ') } }))
      : problem(c, new AppError('NOT_FOUND'));
  });
  app.fetch = tellingAnswered(app.fetch);
  return app;
}

/** The methods that this path is served by. */
function methodsOf(app: Pick<Hono<AppEnv>, 'router'>, path: string): string[] {
  return ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].filter((method) =>
    app.router.match(method, path)[0].some(([[, route]]) => route.method === method),
  );
}
