import { Hono } from 'hono';
import * as z from 'zod';

import { authenticate } from '../../../src/middlewares/auth.middleware';
import { validJson, validQuery } from '../../../src/middlewares/body.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { idempotent } from '../../../src/middlewares/idempotent.middleware';
import { policy } from '../../../src/middlewares/policy';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { ownedRows } from '../../../src/routes/ownedRows';
import { NOTHING_TO_CHANGE, namesSomething, pageSchema } from '../../../src/routes/schemas';
import { notes } from './notes.table';

const rows = ownedRows('notes', notes, { ttlSeconds: 300 });
const fields = z.strictObject({ text: z.string().min(1).max(2_000) });
const changes = fields.partial().refine(namesSomething, NOTHING_TO_CHANGE);
const caller = [rateLimiter(policy.api), authenticate()] as const;
const change = [...caller, idempotent({ again: rows.again })] as const;

export const notesRoutes = new Hono<AppEnv>()
  .get('/', guard(...caller, rows.readsPage()), validQuery(pageSchema), async (c) =>
    c.json(await rows.page(c.var.auth.userId, c.req.valid('query')), 200),
  )
  .post('/', guard(...change), validJson(fields), async (c) =>
    c.json(await rows.create(c.var.auth.userId, c.req.valid('json')), 201),
  )
  .get('/:id', guard(...caller, rows.readsOne()), async (c) =>
    c.json(await rows.find(c.var.auth.userId, c.req.param('id')), 200),
  )
  .patch('/:id', guard(...change), validJson(changes), async (c) =>
    c.json(await rows.change(c.var.auth.userId, c.req.param('id'), c.req.valid('json')), 200),
  )
  .delete('/:id', guard(...change), async (c) => {
    await rows.remove(c.var.auth.userId, c.req.param('id'));
    return c.body(null, 204);
  });
