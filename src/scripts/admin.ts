import { parseArgs } from 'node:util';

import { accountChangeSql, endEveryoneSql, LIST_ADMINS_SQL, normalizeEmail } from './adminSql.ts';
import type { AccountChange } from './adminSql.ts';
import { runProgram, UserError } from './cli.ts';
import { DATABASE } from './migrations.ts';
import { runWrangler, wranglerError } from './wrangler.ts';

const HELP = `npm run admin -- COMMAND [--remote]

  grant EMAIL            makes the account an admin
  revoke EMAIL           makes it an ordinary account again
  disable EMAIL          ends its sessions; it cannot sign in any more
  enable EMAIL           lets it sign in again
  end-sessions EMAIL     ends its sessions; it may sign in again
  end-sessions --everyone   ends the sessions of all accounts
  list                   prints the admins, tab-separated: address, name, status

The account must be registered already. The change is made in the D1 database, with an entry in the audit, and Redis is
told by the Worker's cron trigger within a minute (\`npm run dev\` runs it each minute too). Devices refresh their access
token by themselves and have a new role then; ended sessions are refused.

Options:
  --local           the database of \`npm run dev\` (default)
  --remote          the deployed one (needs \`npx wrangler login\` or CLOUDFLARE_API_TOKEN)
  --env NAME        environment of wrangler.toml
  --persist-to DIR  state directory of a local database
`;

type Row = Readonly<Record<string, string | number | null>>;

/** What the account is after the change. */
const OUTCOMES: Readonly<Record<AccountChange, string>> = {
  grant: 'an admin',
  revoke: 'an ordinary account',
  disable: 'disabled',
  enable: 'enabled',
  'end-sessions': 'signed out everywhere',
};

const isChange = (command: string | undefined): command is AccountChange =>
  command !== undefined && Object.hasOwn(OUTCOMES, command);

const SOON = 'Redis is told within a minute, by the cron trigger.';

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

  const place = values.remote ? 'remote' : 'local';
  const query = (sql: string) => execute(sql, { place, env: values.env, persistTo: values['persist-to'] });
  const [command, email, ...more] = positionals;
  const complete = email !== undefined && more.length === 0;
  if (command === 'list' && email === undefined) return list((await query(LIST_ADMINS_SQL))[0] ?? [], place);
  if (command === 'end-sessions' && values.everyone && email === undefined) return await endEveryone(place, query);
  if (isChange(command) && complete && !values.everyone) return await change(command, email, place, query);
  throw new UserError(
    'Usage: npm run admin -- grant|revoke|disable|enable|end-sessions EMAIL | end-sessions --everyone | list [--remote]   (--help explains)',
  );
});

async function endEveryone(place: string, query: (sql: string) => Promise<Row[][]>) {
  const startedMs = Date.now();
  let users = 0;
  for (;;) {
    const [ended = []] = await query(endEveryoneSql({ startedMs, nowMs: Date.now() }));
    if (ended.length === 0) break;
    users += ended.length;
  }
  console.log(`${users} accounts are signed out everywhere (${place} database). ${SOON}`);
}

async function change(command: AccountChange, given: string, place: string, query: (sql: string) => Promise<Row[][]>) {
  const email = normalizeEmail(given);
  if (!/^\S+@\S+$/.test(email)) throw new UserError(`"${given}" is not an e-mail address.`);
  const results = await query(accountChangeSql(command, { email, nowMs: Date.now() }));

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

/** Which database is asked. */
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
