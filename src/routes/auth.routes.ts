import { Hono } from 'hono';
import type { Context } from 'hono';

import { authenticate } from '../middlewares/auth.middleware';
import { validJson } from '../middlewares/body.middleware';
import { foldAddress } from '../middlewares/clientAddress';
import { authDeadline } from '../middlewares/deadline.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { AuthService } from '../services/auth.service';
import type { Device } from '../services/session.service';
import { loginSchema, passwordSchema, refreshSchema, registerSchema } from './schemas';

/** Where a session begins, as its owner will see it in the list of devices. */
function deviceOf(c: Context, name: string | undefined): Device {
  const agent = (c.req.header('User-Agent') ?? '').replaceAll(/[^\x20-\x7e]/g, '').slice(0, 100);
  return { device: name ?? (agent || 'unknown'), address: addressOf(c) };
}

function addressOf(c: Context): string {
  const address = c.req.header('CF-Connecting-IP') ?? '';
  // The whole address, for its owner: a /64 would not tell their devices apart.
  return address.length <= 45 && address !== '' ? address : foldAddress(address);
}

export const authRoutes = new Hono<AppEnv>()
  .use(authDeadline())
  .post('/register', ...validJson(registerSchema), rateLimiter(policy.register), async (c) => {
    const { device, ...registration } = c.req.valid('json');
    return c.json(await AuthService.register(registration, deviceOf(c, device)), 201);
  })
  .post(
    '/login',
    ...validJson(loginSchema),
    guard(rateLimiter(policy.login), rateLimiter(policy.loginAddress)),
    async (c) => {
      const { device, ...credentials } = c.req.valid('json');
      return c.json(await AuthService.login(credentials, deviceOf(c, device)), 200);
    },
  )
  .post('/refresh', ...validJson(refreshSchema), rateLimiter(policy.refresh), async (c) => {
    return c.json(await AuthService.refresh(c.req.valid('json').refresh_token), 200);
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
