import { runProgram, UserError } from './cli.ts';
import { databaseUrl, migratePostgres } from './postgres.ts';

const HELP = `DATABASE_URL=postgres://… npm run db:migrate

Applies the migrations of src/db/postgres/migrations that the database has not had yet, all in one transaction.
`;

await runProgram(async () => {
  if (process.argv.includes('--help') || process.argv.includes('-h')) {
    process.stdout.write(HELP);
    return;
  }
  const url = databaseUrl(process.env);
  if (url === undefined) throw new UserError(HELP);
  await migratePostgres(url);
  process.stdout.write('The migrations have been applied.\n');
});
