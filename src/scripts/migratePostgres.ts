import { drizzle } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import { join } from 'node:path';
import { Client } from 'pg';

import { ROOT, runProgram, UserError } from './cli.ts';

const HELP = `DATABASE_URL=postgres://… npm run db:migrate

Applies the migrations of src/db/postgres/migrations that the database has not had yet, all in one transaction.
`;

await runProgram(async () => {
  if (process.argv.includes('--help') || process.argv.includes('-h')) {
    process.stdout.write(HELP);
    return;
  }
  const url = process.env['DATABASE_URL'];
  if (url === undefined || !/^postgres(?:ql)?:\/\//.test(url)) throw new UserError(HELP);
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await migrate(drizzle({ client }), { migrationsFolder: join(ROOT, 'src/db/postgres/migrations') });
  } finally {
    await client.end();
  }
  process.stdout.write('The migrations have been applied.\n');
});
