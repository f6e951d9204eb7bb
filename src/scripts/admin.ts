import { parseArgs } from 'node:util';

import { LIST_ADMINS_SQL, normalizeEmail, roleChangeSql } from './adminSql.ts';
import type { Role } from './adminSql.ts';
import { runProgram, UserError } from './cli.ts';
import { DATABASE } from './migrations.ts';
import { runWrangler, wranglerError } from './wrangler.ts';

const HELP = `npm run admin -- COMMAND [--remote]

  grant EMAIL     makes the account an admin
  revoke EMAIL    makes it an ordinary account again
  list            prints the admins, tab-separated: address, name, status

The account must be registered already. The change is made in the D1 database, and Redis is told by the Worker's cron
trigger within a minute (\`npm run dev\` runs it each minute too): devices then refresh their access token by themselves
and have the new role.

Options:
  --local           the database of \`npm run dev\` (default)
  --remote          the deployed one (needs \`npx wrangler login\` or CLOUDFLARE_API_TOKEN)
  --env NAME        environment of wrangler.toml
  --persist-to DIR  state directory of a local database
`;

type Row = Readonly<Record<string, string | number | null>>;

await runProgram(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      local: { type: 'boolean', default: false },
      remote: { type: 'boolean', default: false },
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
  const query = (sql: string) =>
    execute(sql, place, [
      ...(values.env === undefined ? [] : ['--env', values.env]),
      ...(values['persist-to'] === undefined ? [] : ['--persist-to', values['persist-to']]),
    ]);
  const [command, email, ...more] = positionals;
  const complete = email !== undefined && more.length === 0;
  if (command === 'list' && email === undefined) return list((await query(LIST_ADMINS_SQL))[0] ?? [], place);
  if (command === 'grant' && complete) return await setRole(email, 'admin', place, query);
  if (command === 'revoke' && complete) return await setRole(email, 'user', place, query);
  throw new UserError('Usage: npm run admin -- grant EMAIL | revoke EMAIL | list [--remote]   (--help explains)');
});

async function setRole(given: string, role: Role, place: string, query: (sql: string) => Promise<Row[][]>) {
  const email = normalizeEmail(given);
  if (!/^\S+@\S+$/.test(email)) throw new UserError(`"${given}" is not an e-mail address.`);
  const ids = [crypto.randomUUID(), crypto.randomUUID()] as const;
  const results = await query(roleChangeSql({ email, role, nowMs: Date.now(), ids }));

  const account = results.at(-1)?.[0];
  const noun = role === 'admin' ? 'an admin' : 'an ordinary account';
  if (account === undefined) throw new UserError(`No account has the address ${email} in the ${place} database.`);
  if (results[0]?.[0] === undefined) return console.log(`${email} is ${noun} already (${place} database).`);
  console.log(`${email} is ${noun} now (${place} database). Redis is told within a minute, by the cron trigger.`);
  if (account['status'] !== 'active') console.log(`The account is ${account['status']}: it cannot log in.`);
}

function list(rows: readonly Row[], place: string): void {
  // A name is its owner's own text: what a terminal would obey does not go there.
  const plain = (value: unknown) => String(value).replace(/\p{Cc}/gu, ' ');
  for (const row of rows) console.log([row['email'], row['name'], row['status']].map(plain).join('\t'));
  if (rows.length === 0) console.error(`The ${place} database has no admin yet: npm run admin -- grant EMAIL`);
}

/** One result set a statement. All statements are one batch, and so one transaction. */
async function execute(sql: string, place: 'local' | 'remote', options: readonly string[]): Promise<Row[][]> {
  const result = await runWrangler([
    'd1',
    'execute',
    DATABASE,
    `--${place}`,
    '--json',
    '--yes',
    '--command',
    sql,
    ...options,
  ]);
  if (result.code === 0) return (JSON.parse(result.stdout) as { results: Row[] }[]).map(({ results }) => results);

  const error = wranglerError(result);
  if (error.includes('CLOUDFLARE_API_TOKEN')) {
    throw new UserError('wrangler is not logged in: run `npx wrangler login`, or set CLOUDFLARE_API_TOKEN.');
  }
  if (/no such table/.test(error)) {
    const apply = place === 'local' ? '`npm run dev` once, or ' : '';
    throw new UserError(
      `The ${place} database has no tables yet: run ${apply}\`npx wrangler d1 migrations apply ${DATABASE} --${place}\`.`,
    );
  }
  throw new UserError(`The ${place} database could not be asked: ${error}`);
}
