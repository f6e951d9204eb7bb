import { Hono } from 'hono';

import { configOf } from '../config/env';
import { authenticate, requireRole } from '../middlewares/auth.middleware';
import { validJson } from '../middlewares/body.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy, policyNamed } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { RateLimitService } from '../services/rateLimit.service';
import { counterSchema } from './schemas';

const adminOnly = () => guard(rateLimiter(policy.api), authenticate(), requireRole('admin'));

/** An identity may hold an e-mail address, hence the bodies: URLs end up in logs. */
export const adminRoutes = new Hono<AppEnv>()
  .post('/limits/peek', adminOnly(), ...validJson(counterSchema), async (c) => {
    const { policy: name, identity } = c.req.valid('json');
    const quotas = await RateLimitService.peek(policyNamed(name, configOf(c.env).limits), identity);
    const limits = quotas.map(({ name: limit, limit: { maxRequests, windowMs }, remaining, resetMs }) => ({
      name: limit,
      maxRequests,
      windowMs,
      remaining,
      resetMs,
    }));
    return c.json({ limits }, 200);
  })
  .post('/limits/reset', adminOnly(), ...validJson(counterSchema), async (c) => {
    const { policy: name, identity } = c.req.valid('json');
    await RateLimitService.reset(policyNamed(name, configOf(c.env).limits), identity);
    return c.body(null, 204);
  });
