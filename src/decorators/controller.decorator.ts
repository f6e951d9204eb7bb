import { Hono } from 'hono';
import type { Context, MiddlewareHandler } from 'hono';

import { guard } from '../middlewares/guard.middleware';
import type { Mergeable } from '../middlewares/check';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { decorationOf } from './metadata';
import type { ControllerClass, Method, RouteHandler } from './metadata';

/**
 * A class whose methods serve routes under a prefix. TC39 decorators, as TypeScript has them without a flag.
 *
 * @example
 * @Controller('/api')
 * @RateLimit({ windowMs: 60000, maxRequests: 100 })
 * class ApiController {
 *   @Get('/time')
 *   time(c: Context) {
 *     return c.json({ now: new Date().toISOString() });
 *   }
 * }
 *
 * app.route('/', controllerRoutes(new ApiController()));
 */
export function Controller(prefix: string) {
  return (target: ControllerClass, _context: ClassDecoratorContext): void => {
    decorationOf(target).prefix = prefix;
  };
}

const route = (method: Method) => (path: string) => (target: RouteHandler, _context: ClassMethodDecoratorContext) => {
  decorationOf(target).routes.push({ method, path });
};

export const Get = route('GET');
export const Post = route('POST');
export const Put = route('PUT');
export const Patch = route('PATCH');
export const Delete = route('DELETE');

/**
 * Checks for a route, or for every route of a class; they are merged with its limits into one `guard(…)`.
 *
 * @example
 * @Guard(authenticate())
 */
export function Guard(...checks: Mergeable[]) {
  return (
    target: ControllerClass | RouteHandler,
    _context: ClassDecoratorContext | ClassMethodDecoratorContext,
  ): void => {
    decorationOf(target).guards.push(...checks);
  };
}

/**
 * A controller's routes, to be mounted with `app.route('/', …)`.
 *
 * @throws {TypeError} for an object whose class is no `@Controller`
 */
export function controllerRoutes(controller: object): Hono<AppEnv> {
  const { constructor } = controller;
  const { prefix, limits, guards } = decorationOf(constructor);
  if (prefix === undefined) throw new TypeError(`${constructor.name} has no @Controller(prefix)`);
  const routes = new Hono<AppEnv>().basePath(prefix);
  // One counter for the whole class, whichever of its routes is called.
  const shared = limits.map((options) => rateLimiter({ name: `controller-${slug(prefix)}`, ...options }));

  for (const handler of handlersOf(controller)) {
    const own = decorationOf(handler);
    const checks = [...shared, ...own.limits.map((options) => rateLimiter(options)), ...guards, ...own.guards];
    const serve = (c: Context) => handler.call(controller, c);
    for (const { method, path } of own.routes) {
      if (checks.length === 0) routes.on(method, path, serve);
      else routes.on(method, path, guard(...checks) as unknown as MiddlewareHandler, serve);
    }
  }
  return routes;
}

/** Methods of the class and of those that it extends; an override hides what it overrides. */
function* handlersOf(controller: object): Generator<RouteHandler> {
  const seen = new Set<string>(['constructor']);
  for (
    let prototype = Object.getPrototypeOf(controller) as object | null;
    prototype !== null && prototype !== Object.prototype;
    prototype = Object.getPrototypeOf(prototype) as object | null
  ) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (seen.has(name) || typeof value !== 'function') continue;
      seen.add(name);
      yield value as RouteHandler;
    }
  }
}

function slug(prefix: string): string {
  return prefix.replaceAll(/[^A-Za-z0-9]+/g, '-').replaceAll(/^-|-$/g, '') || 'root';
}
