import { spawn } from 'node:child_process';
import { join } from 'node:path';

import { buildAssets } from './buildAssets.ts';
import { ROOT, runProgram, UserError } from './cli.ts';
import { parseVars, readText } from './devVars.ts';
import { KeySetError, parseKeySet, SET_NAMES } from './keySets.ts';
import type { SetKind } from './keySets.ts';
import { POSTGRES_BUILD, assertUncached, hyperdriveId } from './hyperdrive.ts';
import { PROGRAM } from './wrangler.ts';

const HELP = `npm run deploy [-- [--secrets-file FILE] [options of wrangler deploy]]

Deploys the Worker, and with --secrets-file its secrets too, in one version. The key sets of FILE, or without it those of
keys.env where there is one, are tried first: with a key that does not work nothing is deployed. Where wrangler.toml binds
HYPERDRIVE, the Worker is built for PostgreSQL, and a configuration that caches queries is refused.
`;

await runProgram(async () => {
  const args = process.argv.slice(2);
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return;
  }
  const given = optionOf(args, '--secrets-file');
  const file = given ?? join(ROOT, 'keys.env');
  const text = readText(file);
  if (text === undefined && given !== undefined) throw new UserError(`There is no ${given}.`);
  const problems = text === undefined ? [] : keyProblems(varsOf(text));
  if (problems.length > 0) throw new UserError(`Nothing was deployed. ${file} is wrong: ${problems.join('; ')}.`);
  const hyperdrive = hyperdriveId(readText(join(ROOT, 'wrangler.toml')) ?? '');
  if (hyperdrive !== undefined && !args.includes('--dry-run')) await assertUncached(hyperdrive);
  process.exitCode = await wranglerDeploy(args, hyperdrive === undefined ? {} : POSTGRES_BUILD);
});

function optionOf(args: readonly string[], name: string): string | undefined {
  const index = args.findIndex((arg) => arg === name || arg.startsWith(`${name}=`));
  if (index === -1) return undefined;
  return args[index]!.includes('=') ? args[index]!.slice(name.length + 1) : args[index + 1];
}

/** Secrets files are NAME='value' lines, or one JSON object. */
function varsOf(text: string): ReadonlyMap<string, string> {
  if (!text.trimStart().startsWith('{')) return parseVars(text);
  try {
    const values = Object.entries(JSON.parse(text) as Record<string, unknown>);
    return new Map(values.filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
  } catch {
    // Without the parser's own message, which quotes the text.
    throw new UserError('The secrets file is neither NAME=value lines nor JSON.');
  }
}

function keyProblems(vars: ReadonlyMap<string, string>): string[] {
  return Object.entries(SET_NAMES).flatMap(([kind, name]) => {
    const text = vars.get(name);
    if (text === undefined) return [];
    try {
      parseKeySet(kind as SetKind, text);
      return [];
    } catch (error) {
      if (!(error instanceof KeySetError)) throw error;
      return [`${name}: ${error.message}`];
    }
  });
}

async function wranglerDeploy(args: readonly string[], env: Readonly<Record<string, string>>): Promise<number> {
  await buildAssets();
  const child = spawn(process.execPath, ['--no-warnings', PROGRAM, 'deploy', ...args], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: 'inherit',
  });
  return await new Promise((resolve, reject) => {
    child.once('error', reject).once('close', (code) => resolve(code ?? 1));
  });
}
