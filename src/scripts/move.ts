import { parseArgs } from 'node:util';

import { runProgram, UserError } from './cli.ts';
import { fileAt, localDatabase, remoteDatabase } from './move/live.ts';
import { move } from './move/moving.ts';
import { openTarget } from './move/target.ts';

const HELP = `DATABASE_URL=postgres://… npm run move -- --remote --url https://api.example.com

Moves a deployment from D1 to PostgreSQL: copies D1, loads the copy, and compares counts and digests. Before it, deploy with
READ_ONLY=true, so that nothing changes (docs/scaling.md has all steps). A run that was interrupted goes on when the same
command is given again. D1 is only read.

Options:
  --local           the database of \`npm run dev\` (default)
  --remote          the deployed one (needs \`npx wrangler login\` or CLOUDFLARE_API_TOKEN)
  --file FILE       a SQLite file
  --env NAME        environment of wrangler.toml, with --remote
  --persist-to DIR  state directory of a local database
  --url URL         of the deployment, which must refuse changes; needed with --remote
  --lot N           rows of a transaction (default 5000)
  --restart         empties what an unfinished run has loaded, and begins with a new copy of D1
`;

await runProgram(async () => {
  const { values } = parseArgs({
    options: {
      help: { type: 'boolean', short: 'h' },
      local: { type: 'boolean', default: false },
      remote: { type: 'boolean', default: false },
      file: { type: 'string' },
      env: { type: 'string' },
      'persist-to': { type: 'string' },
      url: { type: 'string' },
      lot: { type: 'string', default: '5000' },
      restart: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const address = process.env['DATABASE_URL'];
  if (address === undefined || !/^postgres(?:ql)?:\/\//.test(address)) {
    throw new UserError(
      'DATABASE_URL must be the address of the PostgreSQL database: DATABASE_URL=postgres://… npm run move',
    );
  }
  if ([values.local, values.remote, values.file !== undefined].filter(Boolean).length > 1) {
    throw new UserError('One of --local, --remote and --file, not several.');
  }
  if (values.remote && values.url === undefined)
    throw new UserError('--remote needs --url, to see that the deployment is read-only.');
  if (values.url !== undefined && !/^https?:\/\//.test(values.url))
    throw new UserError('--url begins with https:// (or http://).');
  const lot = Number(values.lot);
  if (!Number.isInteger(lot) || lot < 1 || lot > 50_000)
    throw new UserError('--lot is a whole number from 1 to 50000.');

  const live = values.remote
    ? remoteDatabase(values.env)
    : values.file === undefined
      ? localDatabase(values['persist-to'])
      : fileAt(values.file);
  const target = await openTarget(address);
  try {
    await target.prepare();
    await move(live, target, { url: values.url, lot, restart: values.restart });
  } finally {
    await target.close();
  }
});
