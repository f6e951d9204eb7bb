import { Hono } from 'hono';

import { authenticate, requireRole } from '../middlewares/auth.middleware';
import { validJson, validParam, validQuery } from '../middlewares/body.middleware';
import { reads } from '../middlewares/reads.middleware';
import { guard } from '../middlewares/guard.middleware';
import { idempotent } from '../middlewares/idempotent.middleware';
import type { Again } from '../middlewares/idempotent.middleware';
import { policy, readsWithin } from '../middlewares/policy';
import { requireFresh } from '../middlewares/requireFresh';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { EmailChangeService } from '../services/emailChange.service';
import { EventService } from '../services/event.service';
import { UserService } from '../services/user.service';
import { timestamp } from '../util/timestamp';
import { adminOnce } from './admin/only';
import { ACCEPTED, accepted, done } from './again';
import { emailChangeSchema, listSchema, profileSchema, userChangeSchema, userParam } from './schemas';

/** The response of a repeated change whose first response was not stored: the account as it is now. */
const ofCaller: Again = async (c) => c.json(await UserService.getUser(c.get('auth')?.userId ?? ''), 200);
const ofId: Again = async (c) => c.json(await UserService.getUser(c.req.param('id') ?? ''), 200);

const changing = () => guard(rateLimiter(policy.api), authenticate(), idempotent({ again: ofCaller }));
const adminReads = () => guard(readsWithin, rateLimiter(policy.admin), authenticate(), requireRole('admin'));

/** The latest events of an account, in the API's form. */
export async function presentEvents(userId: string) {
  const happened = await EventService.list(userId);
  const items = happened.map(({ id, kind, sessionId, address, device, atMs }) => ({
    id,
    kind,
    sessionId,
    address,
    device,
    at: timestamp(atMs),
  }));
  return { items, page: 1, limit: items.length, total: items.length };
}

export const userRoutes = new Hono<AppEnv>()
  .get(
    '/me',
    guard(
      readsWithin,
      rateLimiter(policy.api),
      authenticate(),
      reads((c) => UserService.keyOf(c.get('auth').userId)),
    ),
    async (c) => c.json(await UserService.getUser(c.get('auth').userId), 200),
  )
  .patch('/me', changing(), validJson(profileSchema), async (c) =>
    c.json(await UserService.updateUser(c.get('auth').userId, c.req.valid('json')), 200),
  )
  .delete(
    '/me',
    guard(rateLimiter(policy.deleteAccount), authenticate({ revoked: 'repeat' }), requireFresh(), idempotent(done)),
    async (c) => {
      await UserService.deleteUser(c.get('auth').userId);
      return c.body(null, 204);
    },
  )
  .get('/me/export', guard(rateLimiter(policy.export), authenticate(), requireFresh()), async (c) =>
    c.json(await UserService.exportUser(c.get('auth').userId), 200),
  )
  .post(
    '/me/email',
    validJson(emailChangeSchema),
    guard(
      rateLimiter(policy.emailChange),
      rateLimiter(policy.emailChangeMailbox),
      authenticate(),
      requireFresh(),
      idempotent(accepted),
    ),
    async (c) => {
      await EmailChangeService.request(c.get('auth').userId, c.req.valid('json').email);
      return c.json(ACCEPTED, 202);
    },
  )
  .get('/me/events', guard(readsWithin, rateLimiter(policy.events), authenticate()), async (c) => {
    return c.json(await presentEvents(c.get('auth').userId), 200);
  })
  .get('/', adminReads(), validQuery(listSchema), async (c) =>
    c.json(await UserService.getUsers(c.req.valid('query')), 200),
  )
  .get('/:id', adminReads(), validParam(userParam), async (c) =>
    c.json(await UserService.getUser(c.req.valid('param').id), 200),
  )
  .patch('/:id', adminOnce({ again: ofId }), validParam(userParam), validJson(userChangeSchema), async (c) =>
    c.json(await UserService.updateUser(c.req.valid('param').id, c.req.valid('json'), c.get('auth').userId), 200),
  );
