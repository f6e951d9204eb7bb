import { Hono } from 'hono';

import { authenticate } from '../middlewares/auth.middleware';
import { validJson } from '../middlewares/body.middleware';
import { deviceOf } from '../middlewares/clientDevice';
import { authDeadline } from '../middlewares/deadline.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy } from '../middlewares/policy';
import { refreshed } from '../middlewares/refresh.middleware';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { AuthService } from '../services/auth.service';
import { VerificationService } from '../services/verification.service';
import { loginSchema, passwordSchema, refreshSchema, registerSchema, revokeSchema } from './schemas';

export const authRoutes = new Hono<AppEnv>()
  .use(authDeadline())
  .post(
    '/register',
    ...validJson(registerSchema),
    guard(rateLimiter(policy.register), rateLimiter(policy.registerAccount)),
    async (c) => {
      const { device, ...registration } = c.req.valid('json');
      const signedIn = await AuthService.register(registration, deviceOf(c, device));
      VerificationService.welcome(signedIn.user);
      return c.json(signedIn, 201);
    },
  )
  .post(
    '/login',
    ...validJson(loginSchema),
    guard(rateLimiter(policy.login), rateLimiter(policy.loginAddress)),
    async (c) => {
      const { device, ...credentials } = c.req.valid('json');
      return c.json(await AuthService.login(credentials, deviceOf(c, device)), 200);
    },
  )
  .post('/refresh', ...validJson(refreshSchema), guard(rateLimiter(policy.refresh), refreshed()), (c) =>
    c.json(c.var.tokens, 200),
  )
  /** RFC 7009: 200 also for a token that is not valid. */
  .post('/revoke', ...validJson(revokeSchema), rateLimiter(policy.revoke), async (c) => {
    await AuthService.revoke(c.req.valid('json').token);
    return c.json({}, 200);
  })
  .post('/logout', guard(rateLimiter(policy.api), authenticate()), async (c) => {
    await AuthService.logout(c.var.auth);
    return c.body(null, 204);
  })
  .post('/logout-all', guard(rateLimiter(policy.api), authenticate()), async (c) => {
    await AuthService.logoutAll(c.var.auth);
    return c.body(null, 204);
  })
  .post(
    '/password',
    ...validJson(passwordSchema),
    guard(rateLimiter(policy.password), rateLimiter(policy.api), authenticate()),
    async (c) => {
      const { currentPassword, newPassword } = c.req.valid('json');
      return c.json(await AuthService.changePassword(c.var.auth, currentPassword, newPassword), 200);
    },
  );
