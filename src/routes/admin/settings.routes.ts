import { Hono } from 'hono';

import { describeSettings } from '../../config/describeSettings';
import { configOf } from '../../config/env';
import { rotationOf } from '../../config/keyRotation';
import type { AppEnv } from '../../middlewares/services.middleware';
import { timestamp } from '../../util/timestamp';
import { adminOnly } from './only';

export const settingsRoutes = new Hono<AppEnv>()
  /** Every setting as the responding isolate uses it. */
  .get('/settings', adminOnly(), (c) => c.json({ settings: describeSettings(c.env) }, 200))
  /** Ages and next steps; no key material, public or not. */
  .get('/keys', adminOnly(), (c) => {
    const { signingKeys, refreshKeys, passwords, tokens } = configOf(c.env);
    const nowMs = c.get('request').now();
    const sets = [
      { name: 'SIGNING_KEYS', set: signingKeys, lifetimeSeconds: tokens.accessTtlSeconds },
      { name: 'REFRESH_KEYS', set: refreshKeys, lifetimeSeconds: tokens.refreshAbsoluteSeconds },
      { name: 'PEPPER_KEYS', set: passwords.pepperKeys, lifetimeSeconds: undefined },
    ].flatMap(({ name, set, lifetimeSeconds }) => {
      if (set === undefined) return [];
      const { keys, next } = rotationOf(set, lifetimeSeconds, nowMs);
      const at = (ms: number | undefined) => (ms === undefined ? null : timestamp(ms));
      return [
        {
          name,
          keys: keys.map(({ kid, state, sinceMs }) => ({ kid, state, since: at(sinceMs) })),
          next: { step: next.step, safeAt: at(next.safeAtMs) },
        },
      ];
    });
    return c.json({ sets }, 200);
  });
