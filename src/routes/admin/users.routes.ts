import { Hono } from 'hono';

import { AppError } from '../../errors';
import { validJson, validParam, validQuery } from '../../middlewares/body.middleware';
import type { Again } from '../../middlewares/idempotent.middleware';
import type { AppEnv } from '../../middlewares/services.middleware';
import { AuditService } from '../../services/audit.service';
import { CacheService } from '../../services/cache.service';
import { MailService } from '../../services/mail.service';
import { RecoveryService } from '../../services/recovery.service';
import { SessionService, sessionOwner } from '../../services/session.service';
import { UserService } from '../../services/user.service';
import { timestamp } from '../../util/timestamp';
import { presentEvents } from '../users.routes';
import { endEveryoneSchema, pageSchema, userParam, userSessionParam } from '../schemas';
import { ACCEPTED, accepted, done } from '../again';
import { adminOnce, adminOnly } from './only';

/** Makes the response for a batch of sessions that an earlier request ended. */
const lotOf: Again = (c, reference) => c.json(reference as Awaited<ReturnType<typeof SessionService.endEveryone>>, 200);

/** Support for accounts. The audit (`GET /v1/admin/audit`) records each action with the administrator's id. */
export const adminUserRoutes = new Hono<AppEnv>()
  .delete('/users/:id', adminOnce(done), validParam(userParam), async (c) => {
    await UserService.deleteUser(c.req.valid('param').id, c.get('auth').userId);
    return c.body(null, 204);
  })
  .get('/users/:id/sessions', adminOnly(), validParam(userParam), validQuery(pageSchema), async (c) => {
    const [{ id }, query] = [c.req.valid('param'), c.req.valid('query')];
    await UserService.getUser(id);
    const { items, total } = await SessionService.history(id, query);
    const shown = items.map(({ createdAtMs, lastSeenAtMs, expiresAtMs, endedAtMs, ...session }) => ({
      id: session.id,
      device: session.device,
      address: session.address,
      state: session.state,
      endedReason: session.endedReason,
      createdAt: timestamp(createdAtMs),
      lastSeenAt: timestamp(lastSeenAtMs),
      expiresAt: timestamp(expiresAtMs),
      endedAt: endedAtMs === null ? null : timestamp(endedAtMs),
      current: session.id === c.get('auth').sessionId,
    }));
    return c.json({ items: shown, ...query, total }, 200);
  })
  .delete('/users/:id/sessions', adminOnce(done), validParam(userParam), async (c) => {
    await SessionService.endAll(c.req.valid('param').id, c.get('auth').userId);
    return c.body(null, 204);
  })
  .delete('/users/:id/sessions/:session', adminOnce(done), validParam(userSessionParam), async (c) => {
    const { id, session } = c.req.valid('param');
    const isTheirs = sessionOwner(session) === id;
    if (!isTheirs || !(await SessionService.deleteSession(session, 'administrator', c.get('auth').userId))) {
      throw new AppError('NOT_FOUND', { detail: 'This user has no such session.' });
    }
    return c.body(null, 204);
  })
  .get('/users/:id/events', adminOnly(), validParam(userParam), async (c) => {
    const { id } = c.req.valid('param');
    await UserService.getUser(id);
    return c.json(await presentEvents(id), 200);
  })
  .delete('/users/:id/cache', adminOnly(), validParam(userParam), async (c) => {
    const { id } = c.req.valid('param');
    await UserService.getUser(id);
    await AuditService.record({ by: c.get('auth').userId, action: 'user-cache-cleared', userId: id });
    return c.json(await CacheService.invalidateUser(id), 200);
  })
  .post('/users/:id/recovery', adminOnce(accepted), validParam(userParam), async (c) => {
    const { id } = c.req.valid('param');
    const { email, status } = await UserService.getUser(id);
    if (status !== 'active') throw new AppError('ACCOUNT_DISABLED');
    MailService.assertEnabled();
    await AuditService.record({ by: c.get('auth').userId, action: 'recovery-sent', userId: id });
    await RecoveryService.request(email, c.get('auth').userId);
    return c.json(ACCEPTED, 202);
  })
  /** Everyone's sessions but the caller's own, some hundred users a call. */
  .post('/sessions/end', adminOnce({ again: lotOf }), validJson(endEveryoneSchema), async (c) =>
    c.json(await SessionService.endEveryone(c.get('auth').userId, c.req.valid('json').after), 200),
  );
