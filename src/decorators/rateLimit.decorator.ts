import type { RateLimiterOptions } from '../middlewares/rateLimiter.middleware';
import { decorationOf } from './metadata';
import type { ControllerClass, RouteHandler } from './metadata';

/**
 * `rateLimiter(options)` for a class, which then has one counter for all its routes, or for one route.
 *
 * @example
 * @Post('/exports')
 * @RateLimit({ windowMs: 3_600_000, maxRequests: 3 })
 * startExport(c: Context) { … }
 */
export function RateLimit(options: RateLimiterOptions) {
  return (
    target: ControllerClass | RouteHandler,
    _context: ClassDecoratorContext | ClassMethodDecoratorContext,
  ): void => {
    decorationOf(target).limits.push(options);
  };
}
