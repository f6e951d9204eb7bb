import { Hono } from 'hono';

import { authenticate, requireRole } from '../middlewares/auth.middleware';
import { validJson, validParam, validQuery } from '../middlewares/body.middleware';
import { reads } from '../middlewares/cache.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { EventService } from '../services/event.service';
import { UserService } from '../services/user.service';
import { timestamp } from '../util/timestamp';
import { listSchema, profileSchema, userChangeSchema, userParam } from './schemas';

const signedIn = () => guard(rateLimiter(policy.api), authenticate());
const adminOnly = () => guard(rateLimiter(policy.api), authenticate(), requireRole('admin'));

export const userRoutes = new Hono<AppEnv>()
  .get(
    '/me',
    guard(
      rateLimiter(policy.api),
      authenticate(),
      reads((c) => UserService.keyOf(c.var.auth.userId)),
    ),
    async (c) => c.json(await UserService.getUser(c.var.auth.userId), 200),
  )
  .patch('/me', signedIn(), ...validJson(profileSchema), async (c) =>
    c.json(await UserService.updateUser(c.var.auth.userId, c.req.valid('json')), 200),
  )
  .delete('/me', signedIn(), async (c) => {
    await UserService.deleteUser(c.var.auth.userId);
    return c.body(null, 204);
  })
  .get('/me/events', signedIn(), async (c) => {
    const happened = await EventService.list(c.var.auth.userId);
    const items = happened.map(({ id, kind, sessionId, address, device, atMs }) => ({
      id,
      kind,
      sessionId,
      address,
      device,
      at: timestamp(atMs),
    }));
    return c.json({ items, page: 1, limit: items.length, total: items.length }, 200);
  })
  .get('/', adminOnly(), validQuery(listSchema), async (c) =>
    c.json(await UserService.getUsers(c.req.valid('query')), 200),
  )
  .get('/:id', adminOnly(), validParam(userParam), async (c) =>
    c.json(await UserService.getUser(c.req.valid('param').id), 200),
  )
  .patch('/:id', adminOnly(), validParam(userParam), ...validJson(userChangeSchema), async (c) =>
    c.json(await UserService.updateUser(c.req.valid('param').id, c.req.valid('json'), c.var.auth.userId), 200),
  );
