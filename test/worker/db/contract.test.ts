import { env } from 'cloudflare:workers';
import { afterAll } from 'vitest';

import { createDatabase } from '../../../src/db/client';
import { databaseContract } from '../../support/database/contract';
import { listsContract } from '../../support/database/lists';

const open = () => createDatabase(env.DB, { deadlineMs: 20_000 });

databaseContract(open);
listsContract(open);

// Other files list their own.
afterAll(() =>
  env.DB.batch(['users', 'sessions', 'outbox', 'audit'].map((table) => env.DB.prepare(`delete from ${table}`))),
);
