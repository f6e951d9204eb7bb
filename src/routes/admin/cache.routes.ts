import { Hono } from 'hono';

import { validJson } from '../../middlewares/body.middleware';
import type { AppEnv } from '../../middlewares/services.middleware';
import { AuditService } from '../../services/audit.service';
import { CacheService } from '../../services/cache.service';
import { invalidationSchema } from '../schemas';
import { adminOnly } from './only';

export const cacheRoutes = new Hono<AppEnv>().post(
  '/cache/invalidate',
  adminOnly(),
  validJson(invalidationSchema),
  async (c) => {
    const { namespaces, tags, users } = c.req.valid('json');
    // Tags are the app's own texts, and may contain personal data.
    const detail = { namespaces: namespaces.join(' '), tags: tags.length, users: users.length };
    const userId = users.length === 1 ? users[0] : undefined;
    await AuditService.record({ by: c.get('auth').userId, action: 'cache-invalidated', userId, detail });
    return c.json(await CacheService.invalidate({ namespaces, tags, users }), 200);
  },
);
