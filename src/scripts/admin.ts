import { parseArgs } from 'node:util';

import type { Client } from 'pg';

import {
  accountChangeSql,
  D1_DIALECT,
  endEveryoneSql,
  LIST_ADMINS_SQL,
  normalizeEmail,
  POSTGRES_DIALECT,
} from './adminSql.ts';
import type { AccountChange, AdminDialect } from './adminSql.ts';
import { runProgram, UserError } from './cli.ts';
import { DATABASE } from './migrations.ts';
import { codeOf, databaseUrl, transact, withPostgres } from './postgres.ts';
import type { Row } from './postgres.ts';
import { runWrangler, wranglerError } from './wrangler.ts';

const HELP = `npm run admin -- COMMAND [--remote]

  grant EMAIL            makes the account an admin
  revoke EMAIL           makes it an ordinary account again
  disable EMAIL          ends its sessions; it cannot sign in any more
  enable EMAIL           lets it sign in again
  end-sessions EMAIL     ends its sessions; it may sign in again
  end-sessions --everyone   ends the sessions of all accounts
  list                   prints the admins, tab-separated: address, name, status

The account must be registered already. The change is made in the database, with an entry in the audit. The Worker's cron
trigger delivers it to Redis within a minute (\`npm run dev\` runs the trigger each minute too). Devices refresh their access
token by themselves and have a new role then; ended sessions are refused.

Options:
  --local           the database of \`npm run dev\` (default)
  --remote          the deployed one (needs \`npx wrangler login\` or CLOUDFLARE_API_TOKEN)
  --env NAME        environment of wrangler.toml
  --persist-to DIR  state directory of a local database

These are about D1. With DATABASE_URL=postgres://… the change is made in that PostgreSQL database, and they are left out.
`;

/** The state of the account after the change. */
const OUTCOMES: Readonly<Record<AccountChange, string>> = {
  grant: 'an admin',
  revoke: 'an ordinary account',
  disable: 'disabled',
  enable: 'enabled',
  'end-sessions': 'signed out everywhere',
};

const isChange = (command: string | undefined): command is AccountChange =>
  command !== undefined && Object.hasOwn(OUTCOMES, command);

const SOON = 'The cron trigger delivers it to Redis within a minute.';

await runProgram(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      local: { type: 'boolean', default: false },
      remote: { type: 'boolean', default: false },
      everyone: { type: 'boolean', default: false },
      env: { type: 'string' },
      'persist-to': { type: 'string' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (values.local && values.remote) throw new UserError('Either --local or --remote, not both.');

  const url = databaseUrl(process.env);
  const hasD1Options = values.local || values.remote || values.env !== undefined || values['persist-to'] !== undefined;
  // A deployment is on one of them: the change must not be made in the other one by mistake.
  if (url !== undefined && hasD1Options) {
    throw new UserError(
      'DATABASE_URL names a PostgreSQL database; --local, --remote, --env and --persist-to are about D1. Give one of both.',
    );
  }
  if (url !== undefined) {
    const database = { place: 'PostgreSQL', dialect: POSTGRES_DIALECT };
    await withPostgres(url, (client) =>
      obey(positionals, values.everyone, { ...database, query: (sql) => executeOn(client, sql) }),
    );
    return;
  }
  const place = values.remote ? 'remote' : 'local';
  const query = (sql: string) => execute(sql, { place, env: values.env, persistTo: values['persist-to'] });
  await obey(positionals, values.everyone, { place, dialect: D1_DIALECT, query });
});

/** The database that is changed. */
interface AdminDatabase {
  /** What messages call it. */
  place: string;
  dialect: AdminDialect;
  /** Runs statements as one transaction. @returns the rows of each */
  query: (sql: string) => Promise<Row[][]>;
}

async function obey(positionals: readonly string[], everyone: boolean, database: AdminDatabase): Promise<void> {
  const [command, email, ...more] = positionals;
  const complete = email !== undefined && more.length === 0;
  if (command === 'list' && email === undefined) {
    return list((await database.query(LIST_ADMINS_SQL))[0] ?? [], database.place);
  }
  if (command === 'end-sessions' && everyone && email === undefined) return await endEveryone(database);
  if (isChange(command) && complete && !everyone) return await change(command, email, database);
  throw new UserError(
    'Usage: npm run admin -- grant|revoke|disable|enable|end-sessions EMAIL | end-sessions --everyone | list [--remote]   (--help explains)',
  );
}

async function endEveryone({ place, dialect, query }: AdminDatabase): Promise<void> {
  const startedMs = Date.now();
  let users = 0;
  for (;;) {
    const [ended = []] = await query(endEveryoneSql({ startedMs, nowMs: Date.now() }, dialect));
    if (ended.length === 0) break;
    users += ended.length;
  }
  console.log(`${users} accounts are signed out everywhere (${place} database). ${SOON}`);
}

async function change(command: AccountChange, given: string, { place, dialect, query }: AdminDatabase) {
  const email = normalizeEmail(given);
  if (!/^\S+@\S+$/.test(email)) throw new UserError(`"${given}" is not an e-mail address.`);
  const results = await query(accountChangeSql(command, { email, nowMs: Date.now() }, dialect));

  const account = results.at(-1)?.[0];
  const outcome = OUTCOMES[command];
  if (account === undefined) throw new UserError(`No account has the address ${email} in the ${place} database.`);
  if (results[0]?.[0] === undefined) return console.log(`${email} is ${outcome} already (${place} database).`);
  console.log(`${email} is ${outcome} now (${place} database). ${SOON}`);
  if (account['admins'] === 0) console.log('No active admin is left: npm run admin -- grant EMAIL');
  if (command === 'grant' && account['status'] !== 'active')
    console.log(`The account is ${account['status']}: it cannot log in.`);
}

function list(rows: readonly Row[], place: string): void {
  // A name is its owner's own text: what a terminal would obey does not go there.
  const plain = (value: unknown) => String(value).replace(/\p{Cc}/gu, ' ');
  for (const row of rows) console.log([row['email'], row['name'], row['status']].map(plain).join('\t'));
  if (rows.length === 0) console.error(`The ${place} database has no admin yet: npm run admin -- grant EMAIL`);
}

/** @throws {UserError} when the tables are not there */
async function executeOn(client: Client, sql: string): Promise<Row[][]> {
  try {
    return await transact(client, sql);
  } catch (error) {
    const code = codeOf(error);
    if (code === '42P01') throw new UserError('The PostgreSQL database has no tables yet: run `npm run db:migrate`.');
    throw new UserError(`The PostgreSQL database could not be asked (${code || 'the connection broke'}).`);
  }
}

/** Which D1 database is asked. */
interface Target {
  place: 'local' | 'remote';
  env?: string | undefined;
  persistTo?: string | undefined;
}

/** One result set a statement. All statements are one batch, and so one transaction. */
async function execute(sql: string, { place, env, persistTo }: Target): Promise<Row[][]> {
  const ofEnv = env === undefined ? [] : ['--env', env];
  const result = await runWrangler([
    'd1',
    'execute',
    DATABASE,
    `--${place}`,
    '--json',
    '--yes',
    '--command',
    sql,
    ...ofEnv,
    ...(persistTo === undefined ? [] : ['--persist-to', persistTo]),
  ]);
  if (result.code === 0) return (JSON.parse(result.stdout) as { results: Row[] }[]).map(({ results }) => results);

  const error = wranglerError(result);
  if (error.includes('CLOUDFLARE_API_TOKEN')) {
    throw new UserError('wrangler is not logged in: run `npx wrangler login`, or set CLOUDFLARE_API_TOKEN.');
  }
  if (/no such table/.test(error)) {
    const apply = place === 'local' && env === undefined ? '`npm run dev` once, or ' : '';
    const command = ['npx wrangler d1 migrations apply', DATABASE, `--${place}`, ...ofEnv].join(' ');
    throw new UserError(`The ${place} database has no tables yet: run ${apply}\`${command}\`.`);
  }
  throw new UserError(`The ${place} database could not be asked: ${error}`);
}
