import { spawn } from 'node:child_process';
import { basename, join, resolve } from 'node:path';

import { buildAssets } from './buildAssets.ts';
import { ROOT, runProgram, UserError } from './cli.ts';
import { parseVars, readText } from './devVars.ts';
import { keysFileOf } from './keyFiles.ts';
import { KeySetError, parseKeySet, SET_NAMES } from './keySets.ts';
import type { SetKind } from './keySets.ts';
import { POSTGRES_BUILD, assertUncached, hyperdriveId } from './hyperdrive.ts';
import { missing, placeholders } from './placeholders.ts';
import { PROGRAM } from './wrangler.ts';
import { environmentsOf, linesOf } from './wranglerToml.ts';

const HELP = `npm run deploy [-- [--env NAME] [--secrets-file FILE] [--dry-run] [options of wrangler deploy]]

Deploys the Worker, and with --secrets-file its secrets too, in one version. Nothing is deployed when

- wrangler.toml still has an example in the place of a value, such as an id of zeros, or an environment has no ISSUER,
  AUDIENCE or database of its own;
- a key does not work: those of FILE, or without it of keys.env (of keys.NAME.env with --env NAME) where there is one;
- HYPERDRIVE is bound, and its configuration caches queries. (With HYPERDRIVE the Worker is built for PostgreSQL.)

A secrets file without a name that wrangler.toml requires under [secrets] is warned of.

--env NAME    an environment of wrangler.toml, such as staging; without it production
--dry-run     checks all of this but Hyperdrive, and builds the Worker; uploads nothing, and needs no login
`;

await runProgram(async () => {
  const args = process.argv.slice(2);
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return;
  }
  const file = optionOf(args, '--config', '-c') ?? 'wrangler.toml';
  const toml = readText(resolve(ROOT, file)) ?? '';
  const environments = environmentsOf(toml);
  const given = optionOf(args, '--env', '-e');
  const environment = given ?? process.env['CLOUDFLARE_ENV'] ?? '';
  // wrangler only warns, and deploys a new Worker of that name.
  if (environment !== '' && !environments.includes(environment)) {
    throw new UserError(`Nothing was deployed. ${file} has no [env.${environment}].`);
  }
  assertComplete(file, toml, environment);
  const secretsFile = optionOf(args, '--secrets-file');
  const owner = environments.find((name) => basename(secretsFile ?? '') === keysFileOf(name));
  if (owner !== undefined && owner !== environment) {
    throw new UserError(`Nothing was deployed. ${secretsFile} has the secrets of ${owner}: give --env ${owner}.`);
  }
  assertKeysWork(secretsFile, environment);
  const lacking =
    secretsFile === undefined ? [] : lackingSecrets(toml, environment, varsOf(readText(secretsFile) ?? ''));
  if (lacking.length > 0) {
    console.error(`# ${secretsFile} has no ${lacking.join(', ')}: right only if the deployed Worker has them already.`);
  }
  const hyperdrive = hyperdriveId(resolve(ROOT, file), environment);
  if (hyperdrive !== undefined && !args.includes('--dry-run')) await assertUncached(hyperdrive);
  // Where there are several environments wrangler asks that production be named, by an empty name.
  const named = environments.length > 0 && given === undefined ? [`--env=${environment}`] : [];
  process.exitCode = await wranglerDeploy([...args, ...named], hyperdrive === undefined ? {} : POSTGRES_BUILD);
});

function assertComplete(file: string, toml: string, environment: string): void {
  const lacks = missing(toml, environment);
  if (lacks.length > 0) {
    const hint = environment === '' ? '' : ' An environment inherits neither variables nor databases.';
    throw new UserError(`Nothing was deployed. ${file} is not complete: ${lacks.join('; ')}.${hint}`);
  }
  const found = placeholders(toml, environment);
  if (found.length === 0) return;
  throw new UserError([`Nothing was deployed. ${file} has examples in the place of values:`, ...found].join('\n  '));
}

function assertKeysWork(given: string | undefined, environment: string): void {
  const file = given ?? join(ROOT, keysFileOf(environment));
  const text = readText(file);
  if (text === undefined && given !== undefined) throw new UserError(`There is no ${given}.`);
  const problems = text === undefined ? [] : secretProblems(varsOf(text));
  if (problems.length > 0) throw new UserError(`Nothing was deployed. ${file} is wrong: ${problems.join('; ')}.`);
}

/** What `[secrets] required` names and the secrets file does not have. */
function lackingSecrets(toml: string, environment: string, vars: ReadonlyMap<string, string>): string[] {
  const required = linesOf(toml, environment).filter(({ table, name }) => table === 'secrets' && name === 'required');
  return required.flatMap(({ texts }) => texts).filter((name) => !vars.has(name));
}

function optionOf(args: readonly string[], ...names: string[]): string | undefined {
  for (const [index, arg] of args.entries()) {
    const name = names.find((one) => arg === one || arg.startsWith(`${one}=`));
    if (name !== undefined) return arg === name ? args[index + 1] : arg.slice(name.length + 1);
  }
  return undefined;
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

function secretProblems(vars: ReadonlyMap<string, string>): string[] {
  // As the documentation shows them, with an ellipsis for the value.
  const empty = ['UPSTASH_REDIS_REST_URL', 'UPSTASH_REDIS_REST_TOKEN']
    .filter((name) => /^…?$/.test(vars.get(name) ?? 'set elsewhere'))
    .map((name) => `${name} has no value`);
  return [...empty, ...keyProblems(vars)];
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
