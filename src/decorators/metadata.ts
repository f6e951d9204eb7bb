import type { Context } from 'hono';

import type { Mergeable } from '../middlewares/check';
import type { RateLimiterOptions } from '../middlewares/rateLimiter.middleware';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** A controller's method that serves a route. */
// oxlint-disable-next-line typescript/no-explicit-any -- `this` and the context's type are the method's own choice
export type RouteHandler = (this: any, c: Context) => Response | Promise<Response>;

// oxlint-disable-next-line typescript/no-explicit-any -- any constructor may be decorated
export type ControllerClass = abstract new (...args: any[]) => object;

/** Metadata that the decorators record for a class or one of its methods. */
export interface Decoration {
  prefix?: string;
  routes: { method: Method; path: string }[];
  limits: RateLimiterOptions[];
  guards: Mergeable[];
}

const decorations = new WeakMap<object, Decoration>();

/** Keyed by the class or function itself, because workerd has no `Symbol.metadata`. */
export function decorationOf(target: object): Decoration {
  let decoration = decorations.get(target);
  if (decoration === undefined) {
    decoration = { routes: [], limits: [], guards: [] };
    decorations.set(target, decoration);
  }
  return decoration;
}
