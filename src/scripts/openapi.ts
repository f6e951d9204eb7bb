import { readFile, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';

import { format } from 'oxfmt';
import type { FormatConfig } from 'oxfmt';

import { ROOT, UserError, runProgram } from './cli.ts';
import { honoTypes } from './openapi/honoTypes.ts';
import { readContract } from './openapi/contract.ts';
import { clientTypes } from './openapi/clientTypes.ts';

const HELP = `npm run openapi

Writes the API's contract, as the routes and their validators are now:
  docs/openapi.json        OpenAPI 3.1
  src/client/contract.ts   types of the client library
  src/client/hono.ts       types for Hono's client

  --check   writes nothing; fails when a file is out of date
`;

await runProgram(async () => {
  const { values } = parseArgs({
    options: { help: { type: 'boolean', short: 'h' }, check: { type: 'boolean', default: false } },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const contract = await readContract();
  const made: Record<string, string> = {
    'docs/openapi.json': JSON.stringify(contract, null, 2),
    'src/client/contract.ts': clientTypes(contract),
    'src/client/hono.ts': honoTypes(contract),
  };
  const options = JSON.parse(await readFile(join(ROOT, '.oxfmtrc.json'), 'utf8')) as FormatConfig;
  const outdated: string[] = [];
  for (const [name, text] of Object.entries(made)) {
    const path = join(ROOT, name);
    const { code, errors } = await format(path, text, options);
    if (errors.length > 0) throw new Error(`${name} cannot be formatted: ${errors[0]?.message}`);
    const present = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (present === code) continue;
    outdated.push(relative(ROOT, path));
    if (!values.check) await writeFile(path, code);
  }
  if (!values.check || outdated.length === 0) return;
  throw new UserError(`Out of date: ${outdated.join(', ')}. Run \`npm run openapi\`.`);
});
