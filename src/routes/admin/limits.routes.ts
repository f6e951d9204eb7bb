import { Hono } from 'hono';

import { configOf } from '../../config/env';
import { AppError } from '../../errors';
import { validJson } from '../../middlewares/body.middleware';
import type { Again } from '../../middlewares/idempotent.middleware';
import { mountedLimiters } from '../../middlewares/mountedLimiters';
import type { MountedLimiter, ServedRoute } from '../../middlewares/mountedLimiters';
import { changesNothing } from '../../middlewares/readOnly.middleware';
import type { AppEnv } from '../../middlewares/services.middleware';
import { AuditService } from '../../services/audit.service';
import { LimitOverrideService } from '../../services/limitOverride.service';
import { RateLimitService } from '../../services/rateLimit.service';
import { timestamp } from '../../util/timestamp';
import { done } from '../again';
import { counterSchema, overrideSchema, policyOnlySchema } from '../schemas';
import { adminOnce, adminOnly } from './only';
import { resolveIdentity } from './typedIdentity';

/**
 * Counters and numbers of every mounted limiter, an app's own included. Identities travel in bodies, because they may hold an
 * e-mail address, and URLs end up in logs.
 *
 * @param routesOf the app's routes, once all are mounted
 */
export function adminLimitRoutes(routesOf: () => readonly ServedRoute[]) {
  const mounted = (env: Env) => mountedLimiters(routesOf(), configOf(env));

  function find(env: Env, policy: string): MountedLimiter {
    const found = mounted(env).get(policy);
    if (found !== undefined) return found;
    throw refused('is no limiter of this app (GET /v1/admin/limits lists them)');
  }

  /** With the numbers in force now. */
  function policyOf({ policy, algorithm, limits }: MountedLimiter) {
    const inForce = LimitOverrideService.limits(policy, algorithm) ?? limits;
    if (inForce === undefined) {
      throw refused('has numbers that depend on the request: override them first');
    }
    return { name: policy, limits: inForce };
  }

  return new Hono<AppEnv>()
    .get('/limits', adminOnly(), async (c) => {
      const overrides = new Map((await LimitOverrideService.list()).map((override) => [override.policy, override]));
      const limits = [...mounted(c.env).values()].map(({ policy, counts, algorithm, limits: own, places }) => {
        const override = overrides.get(policy);
        return {
          policy,
          counts,
          algorithm,
          windows: (override?.windows ?? own ?? []).map(numbersOf),
          ownWindows: (own ?? []).map(numbersOf),
          overriddenBy: override?.by ?? null,
          overriddenAt: override === undefined ? null : timestamp(override.atMs),
          places,
        };
      });
      return c.json({ limits }, 200);
    })
    .post('/limits/peek', adminOnly(), changesNothing(), validJson(counterSchema), async (c) => {
      const { policy, identity } = c.req.valid('json');
      const limiter = find(c.env, policy);
      const { identity: counted } = await resolveIdentity(identity, limiter.counts);
      const quotas = await RateLimitService.peek(policyOf(limiter), counted);
      const limits = quotas.map(({ name, limit: { maxRequests, windowMs }, remaining, resetMs }) => ({
        name,
        maxRequests,
        windowMs,
        remaining,
        resetMs,
      }));
      return c.json({ limits }, 200);
    })
    .post('/limits/reset', adminOnce(done), validJson(counterSchema), async (c) => {
      const { policy, identity } = c.req.valid('json');
      const limiter = find(c.env, policy);
      const { identity: counted, userId } = await resolveIdentity(identity, limiter.counts);
      const named = policyOf(limiter);
      await AuditService.record({ by: c.get('auth').userId, action: 'limit-reset', userId, detail: { policy } });
      await RateLimitService.reset(named, counted);
      return c.body(null, 204);
    })
    .post('/limits/override', adminOnce({ again: announced }), validJson(overrideSchema), async (c) => {
      const { policy, windows } = c.req.valid('json');
      find(c.env, policy);
      assertUsable(policy, windows);
      return c.json(await LimitOverrideService.set(policy, windows, c.get('auth').userId), 200);
    })
    .post('/limits/restore', adminOnce({ again: announced }), validJson(policyOnlySchema), async (c) => {
      const { policy } = c.req.valid('json');
      const known = (await LimitOverrideService.list()).some((override) => override.policy === policy);
      // Also for a limiter that a later deployment has removed.
      if (!known) find(c.env, policy);
      return c.json(await LimitOverrideService.set(policy, null, c.get('auth').userId), 200);
    });
}

/** The response of a change that D1 has already stored. */
const announced: Again = async (c) => c.json(await LimitOverrideService.announce(), 200);

const refused = (detail: string) => new AppError('VALIDATION_FAILED', { errors: [{ pointer: '/policy', detail }] });

const numbersOf = ({ maxRequests, windowMs }: { maxRequests: number; windowMs: number }) => ({ maxRequests, windowMs });

/** The lowest limit with which administrators can still undo an override. */
const ADMIN_LEAST = { maxRequests: 100, windowMs: 900_000 };

/** @throws {AppError} for numbers that would lock administrators out of these routes */
function assertUsable(policy: string, windows: readonly { maxRequests: number; windowMs: number }[]): void {
  if (policy !== 'admin') return;
  const { maxRequests, windowMs } = ADMIN_LEAST;
  if (windows.every((window) => window.maxRequests >= maxRequests && window.windowMs <= windowMs)) return;
  throw new AppError('VALIDATION_FAILED', {
    errors: [
      { pointer: '/windows', detail: 'must leave administrators 100 requests in a window of 15 minutes at most' },
    ],
  });
}
