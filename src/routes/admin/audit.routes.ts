import { Hono } from 'hono';

import { validQuery } from '../../middlewares/body.middleware';
import type { AppEnv } from '../../middlewares/services.middleware';
import { AuditService } from '../../services/audit.service';
import { timestamp } from '../../util/timestamp';
import { auditSchema } from '../schemas';
import { adminOnly } from './only';

export const auditRoutes = new Hono<AppEnv>().get('/audit', adminOnly(), validQuery(auditSchema), async (c) => {
  const { page, limit, user } = c.req.valid('query');
  const { items, total } = await AuditService.list({ page, limit, userId: user });
  const shown = items.map(({ seq, atMs, by, action, userId, detail }) => ({
    id: String(seq),
    at: timestamp(atMs),
    by,
    action,
    userId,
    // All values become strings, so that generated clients can type them.
    detail: Object.fromEntries(Object.entries(detail).map(([name, value]) => [name, String(value)])),
  }));
  return c.json({ items: shown, page, limit, total }, 200);
});
