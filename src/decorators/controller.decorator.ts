import { Hono } from 'hono';
import type { Context, MiddlewareHandler } from 'hono';

import { guard } from '../middlewares/guard.middleware';
import type { Mergeable } from '../middlewares/check';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { decorationOf } from './metadata';
import type { ControllerClass, Method, RouteHandler } from './metadata';

/**
 * A class whose methods serve routes under a prefix. It uses TC39 decorators, which TypeScript supports without a flag.
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
  const handlers = [...handlersOf(controller)];
  // One counter for all routes of the class.
  const name = counterOf(constructor, prefix, handlers);
  const shared = limits.map((options, index) =>
    rateLimiter({ name: index === 0 ? name : `${name}.${index + 1}`, ...options }),
  );

  for (const handler of handlers) {
    const decoration = decorationOf(handler);
    const limiters = decoration.limits.map((options) => rateLimiter(options));
    const checks = [...shared, ...limiters, ...guards, ...decoration.guards];
    const serve = (c: Context) => handler.call(controller, c);
    for (const { method, path } of decoration.routes) {
      if (checks.length === 0) routes.on(method, path, serve);
      // The checks are known only at run time, so the variables that they add have no types.
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

/** By prefix: the class whose counter is named by the prefix alone. */
const owners = new Map<string, object>();

/** The name of a class's counter: `controller-api` for `/api`. */
function counterOf(constructor: object, prefix: string, handlers: readonly RouteHandler[]): string {
  const owner = owners.get(prefix) ?? constructor;
  owners.set(prefix, owner);
  const name = `controller-${nameOf(prefix)}`;
  if (owner === constructor) return name;
  // Classes may share a prefix, but no route.
  const [first] = handlers.flatMap((handler) => decorationOf(handler).routes);
  return first === undefined ? name : `${name}-${first.method}-${nameOf(first.path)}`;
}

/** A path as part of a limit's name, another one for each path: `/api` is `api`, `/x/a` is `x.a`, `/x-a` is `x_2da`. */
function nameOf(path: string): string {
  const bytes = new TextEncoder().encode(path.replace(/^\//, ''));
  return Array.from(bytes, (byte) => {
    const character = String.fromCharCode(byte);
    if (character === '/') return '.';
    return /[A-Za-z0-9]/.test(character) ? character : `_${byte.toString(16).padStart(2, '0')}`;
  }).join('');
}
