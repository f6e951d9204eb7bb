import { Hono } from 'hono';

import { authenticate } from '../middlewares/auth.middleware';
import { validJson } from '../middlewares/body.middleware';
import { authDeadline } from '../middlewares/deadline.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { RecoveryService } from '../services/recovery.service';
import { VerificationService } from '../services/verification.service';
import { recoverySchema, resetSchema, verificationSchema } from './schemas';

/** What is said whatever happens next: a mail may be on its way. */
const ACCEPTED = { status: 'accepted' } as const;

export const recoveryRoutes = new Hono<AppEnv>()
  .use(authDeadline())
  .post(
    '/recovery',
    ...validJson(recoverySchema),
    guard(rateLimiter(policy.recovery), rateLimiter(policy.recoveryAccount)),
    async (c) => {
      await RecoveryService.request(c.req.valid('json').email);
      return c.json(ACCEPTED, 202);
    },
  )
  .post('/recovery/confirm', ...validJson(resetSchema), rateLimiter(policy.oneTimeToken), async (c) => {
    const { token, newPassword } = c.req.valid('json');
    await RecoveryService.reset(token, newPassword);
    return c.body(null, 204);
  })
  .post('/verification', guard(rateLimiter(policy.verification), authenticate()), async (c) => {
    await VerificationService.request(c.var.auth.userId);
    return c.json(ACCEPTED, 202);
  })
  // Without a session: the link may be opened on another device.
  .post('/verification/confirm', ...validJson(verificationSchema), rateLimiter(policy.oneTimeToken), async (c) => {
    await VerificationService.confirm(c.req.valid('json').token);
    return c.body(null, 204);
  });
