import { Hono } from 'hono';

import { AppError } from '../errors';
import { authenticate } from '../middlewares/auth.middleware';
import { validParam } from '../middlewares/body.middleware';
import { guard } from '../middlewares/guard.middleware';
import { idempotent } from '../middlewares/idempotent.middleware';
import { policy, readsWithin } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { SessionService, sessionOwner } from '../services/session.service';
import { timestamp } from '../util/timestamp';
import { done } from './again';
import { sessionParam } from './schemas';

/** A request may end its own session. */
const ending = () => guard(rateLimiter(policy.endSession), authenticate({ revoked: 'repeat' }), idempotent(done));

export const sessionRoutes = new Hono<AppEnv>()
  .get('/', guard(readsWithin, rateLimiter(policy.sessions), authenticate()), async (c) => {
    const { userId, sessionId } = c.get('auth');
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
  .delete('/:id', validParam(sessionParam), ending(), async (c) => {
    const { id } = c.req.valid('param');
    // Another user's session gets the same 404 as one that does not exist.
    const own = sessionOwner(id) === c.get('auth').userId;
    if (!own || !(await SessionService.deleteSession(id, 'revoked'))) {
      throw new AppError('NOT_FOUND', { detail: 'There is no such session.' });
    }
    return c.body(null, 204);
  });
