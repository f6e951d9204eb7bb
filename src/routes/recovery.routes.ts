import { Hono } from 'hono';

import { authenticate } from '../middlewares/auth.middleware';
import { validJson } from '../middlewares/body.middleware';
import { authDeadline } from '../middlewares/deadline.middleware';
import { guard } from '../middlewares/guard.middleware';
import { idempotent } from '../middlewares/idempotent.middleware';
import { policy } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { AccountDeletionService } from '../services/accountDeletion.service';
import { EmailChangeService } from '../services/emailChange.service';
import { RecoveryService } from '../services/recovery.service';
import { VerificationService } from '../services/verification.service';
import { ACCEPTED, accepted, byAccount, byToken, done } from './again';
import { deletionSchema, emailTokenSchema, recoverySchema, resetSchema, verificationSchema } from './schemas';

const confirming = () => guard(rateLimiter(policy.oneTimeToken), idempotent({ ...done, ...byToken }));

export const recoveryRoutes = new Hono<AppEnv>()
  .use(authDeadline())
  .post(
    '/recovery',
    validJson(recoverySchema),
    guard(rateLimiter(policy.recovery), rateLimiter(policy.recoveryAccount), idempotent({ ...accepted, ...byAccount })),
    async (c) => {
      await RecoveryService.request(c.req.valid('json').email);
      return c.json(ACCEPTED, 202);
    },
  )
  .post('/recovery/confirm', validJson(resetSchema), confirming(), async (c) => {
    const { token, newPassword } = c.req.valid('json');
    await RecoveryService.reset(token, newPassword);
    return c.body(null, 204);
  })
  // The app's page /delete-account uses both routes: an owner who has uninstalled the app still has the mailbox.
  .post(
    '/deletion',
    validJson(deletionSchema),
    guard(rateLimiter(policy.deletion), rateLimiter(policy.deletionAccount), idempotent({ ...accepted, ...byAccount })),
    async (c) => {
      await AccountDeletionService.request(c.req.valid('json').email);
      return c.json(ACCEPTED, 202);
    },
  )
  .post('/deletion/confirm', validJson(emailTokenSchema), confirming(), async (c) => {
    await AccountDeletionService.confirm(c.req.valid('json').token);
    return c.body(null, 204);
  })
  // Both work without a session: the link may be opened on another device, or by an owner who is signed out.
  .post('/email/confirm', validJson(emailTokenSchema), confirming(), async (c) => {
    await EmailChangeService.confirm(c.req.valid('json').token);
    return c.body(null, 204);
  })
  .post('/email/undo', validJson(emailTokenSchema), confirming(), async (c) => {
    await EmailChangeService.undo(c.req.valid('json').token);
    return c.body(null, 204);
  })
  .post('/verification', guard(rateLimiter(policy.verification), authenticate(), idempotent(accepted)), async (c) => {
    await VerificationService.request(c.get('auth').userId);
    return c.json(ACCEPTED, 202);
  })
  // Without a session: the link may be opened on another device.
  .post('/verification/confirm', validJson(verificationSchema), confirming(), async (c) => {
    await VerificationService.confirm(c.req.valid('json').token);
    return c.body(null, 204);
  });
