import { Hono } from 'hono';

import { AppError } from '../errors';
import { authenticate } from '../middlewares/auth.middleware';
import { validParam } from '../middlewares/body.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { SessionService, sessionOwner } from '../services/session.service';
import { timestamp } from '../util/timestamp';
import { sessionParam } from './schemas';

export const sessionRoutes = new Hono<AppEnv>()
  .get('/', guard(rateLimiter(policy.api), authenticate()), async (c) => {
    const { userId, sessionId } = c.var.auth;
    const sessions = await SessionService.list(userId);
    const items = sessions.map(({ id, device, address, createdAtMs, lastSeenAtMs, expiresAtMs }) => ({
      id,
      device,
      address,
      createdAt: timestamp(createdAtMs),
      lastSeenAt: timestamp(lastSeenAtMs),
      expiresAt: timestamp(expiresAtMs),
      current: id === sessionId,
    }));
    return c.json({ items, page: 1, limit: items.length, total: items.length }, 200);
  })
  .delete('/:id', validParam(sessionParam), guard(rateLimiter(policy.api), authenticate()), async (c) => {
    const { id } = c.req.valid('param');
    // Somebody else's session is as unknown as one that never was.
    const own = sessionOwner(id) === c.var.auth.userId;
    if (!own || !(await SessionService.deleteSession(id, 'revoked'))) {
      throw new AppError('NOT_FOUND', { detail: 'There is no such session.' });
    }
    return c.body(null, 204);
  });
