import { Hono } from 'hono';

import { authenticate } from '../middlewares/auth.middleware';
import { validJson } from '../middlewares/body.middleware';
import { deviceOf } from '../middlewares/clientDevice';
import { authDeadline } from '../middlewares/deadline.middleware';
import { guard } from '../middlewares/guard.middleware';
import { idempotent } from '../middlewares/idempotent.middleware';
import { policy } from '../middlewares/policy';
import { refreshed } from '../middlewares/refresh.middleware';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { AuthService } from '../services/auth.service';
import { VerificationService } from '../services/verification.service';
import { byAccount, done, renewed, signedIn } from './again';
import {
  loginSchema,
  passwordSchema,
  reauthenticationSchema,
  refreshSchema,
  registerSchema,
  revokeSchema,
} from './schemas';

/** For requests that end their own session. */
const ending = () => guard(rateLimiter(policy.logout), authenticate({ revoked: 'repeat' }), idempotent(done));

export const authRoutes = new Hono<AppEnv>()
  .use(authDeadline())
  .post(
    '/register',
    validJson(registerSchema),
    guard(
      rateLimiter(policy.register),
      rateLimiter(policy.registerDay),
      rateLimiter(policy.registerAccount),
      rateLimiter(policy.mailbox),
      idempotent({ ...signedIn(201), ...byAccount }),
    ),
    async (c) => {
      const { device, ...registration } = c.req.valid('json');
      const registered = await AuthService.register(registration, deviceOf(c, device));
      VerificationService.welcome(registered.user);
      return c.json(registered, 201);
    },
  )
  .post(
    '/login',
    validJson(loginSchema),
    guard(rateLimiter(policy.login), rateLimiter(policy.loginAddress), idempotent({ ...signedIn(200), ...byAccount })),
    async (c) => {
      const { device, ...credentials } = c.req.valid('json');
      return c.json(await AuthService.login(credentials, deviceOf(c, device)), 200);
    },
  )
  .post('/refresh', validJson(refreshSchema), guard(rateLimiter(policy.refresh), refreshed()), (c) =>
    c.json(c.get('tokens'), 200),
  )
  /** RFC 7009: 200 also for a token that is not valid. */
  .post('/revoke', validJson(revokeSchema), rateLimiter(policy.revoke), async (c) => {
    await AuthService.revoke(c.req.valid('json').token);
    return c.json({}, 200);
  })
  .post('/logout', ending(), async (c) => {
    await AuthService.logout(c.get('auth'));
    return c.body(null, 204);
  })
  .post('/logout-all', ending(), async (c) => {
    await AuthService.logoutAll(c.get('auth'));
    return c.body(null, 204);
  })
  .post(
    '/reauthenticate',
    validJson(reauthenticationSchema),
    guard(rateLimiter(policy.reauthenticate), authenticate()),
    async (c) => c.json(await AuthService.reauthenticate(c.get('auth'), c.req.valid('json').password), 200),
  )
  .post(
    '/password',
    validJson(passwordSchema),
    guard(
      rateLimiter(policy.password),
      // The first execution of this request has outdated its token.
      authenticate({ revoked: 'renewed' }),
      idempotent(renewed),
    ),
    async (c) => {
      const { currentPassword, newPassword } = c.req.valid('json');
      return c.json(await AuthService.changePassword(c.get('auth'), currentPassword, newPassword), 200);
    },
  );
