import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { ROOT, runProgram, UserError } from './cli.ts';
import { parseVars, readText, setVars, writeSecrets } from './devVars.ts';
import { keysFileOf, namedValues, print, readSource, setOf } from './keyFiles.ts';
import type { Sets } from './keyFiles.ts';
import { createKeySet, SET_NAMES } from './keySets.ts';
import type { SetKind, SigningAlg } from './keySets.ts';
import { rotateSets } from './rotateSets.ts';
import { environmentsOf } from './wranglerToml.ts';

/** The sets that every Worker needs. */
const TOKEN_SETS = ['signing', 'refresh'] as const satisfies SetKind[];

const HELP = `npm run -s keys [-- [rotate|check] [options]]

Creates the key sets of the tokens, rotates them by one step, or checks them. The sets go to stdout, what to do with
them to stderr; with --to or --write they go into a file that only you can read, and are not shown.
The peppers of the passwords are a set, too, which is only touched with --set pepper.

  npm run -s keys -- --to keys.env                 new sets, as NAME='…' lines; then: npm run deploy -- --secrets-file keys.env
  npm run -s keys -- --set signing                 one set, its JSON only, for: npx wrangler secret put SIGNING_KEYS
  npm run -s keys -- check --from keys.env         tries every key of FILE, as the Worker does before it serves anything
  npm run -s keys -- rotate --from FILE --write    the next step for the sets in FILE (NAME='…' lines, or with --set the
                                                   JSON); without --from, in .dev.vars; - is stdin

A rotation takes three steps, each deployed at once and before the next:
  1. rotate                   publishes a next key, which signs nothing yet
  2. rotate                   ten minutes later: the next key becomes active, the active one retired: it still verifies
  3. rotate --drop-retired    drops the retired keys: tokens signed by them are refused from then on
A third rotate without --drop-retired is refused: it would begin another rotation.
A step that would break tokens in use is refused, with the time from which on it is safe: that is the step before, plus
ten minutes, plus in step 3 the life of an access token or of a session (wrangler.toml, else the default).

Peppers (optional):
  npm run -s keys -- --set pepper                  a first set, for: npx wrangler secret put PEPPER_KEYS
  npm run -s keys -- rotate --set pepper           its next step, in the same order as above

  A password can be checked only with the pepper that it was hashed with, and gets the active one when its owner next
  logs in. So a retired pepper has no end of its own: it stays until you name it, and without PEPPER_KEYS, or with one
  of its keys lost, the accounts that need it get a 503 until it is back. Drop one only when this says 0 (of its kid,
  write each - as + and each _ as /):
    npx wrangler d1 execute DB --remote --command "select count(*) from users where instr(password_hash, 'keyid=KID')"
  npm run -s keys -- rotate --set pepper --drop-retired --kid KID

Options:
  --set signing|refresh|pepper   only SIGNING_KEYS, REFRESH_KEYS or PEPPER_KEYS
  --alg Ed25519|ES256            algorithm of a new signing key (Ed25519; rotating, that of the active key)
  --to FILE                      where new sets are written, in place of stdout
  --from FILE                    where rotate and check read the sets
  --write                        write the sets to .dev.vars, or to the FILE of --from, in place of stdout
  --drop-retired                 the third step
  --kid KID                      the one to drop; a pepper is dropped by its name only
  --force                        take the step before its safe time, as after a leak of the key, or in .dev.vars; or begin
                                 another rotation while a key is retired
`;

await runProgram(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      set: { type: 'string' },
      alg: { type: 'string' },
      to: { type: 'string' },
      from: { type: 'string' },
      write: { type: 'boolean', default: false },
      'drop-retired': { type: 'boolean', default: false },
      kid: { type: 'string' },
      force: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }

  const [command = 'create', ...more] = positionals;
  if (more.length > 0 || !['create', 'rotate', 'check'].includes(command)) {
    throw new UserError(
      `There is no command "${positionals.join(' ')}": leave it out, or give rotate or check (--help explains).`,
    );
  }
  const { from, to, write, kid, force, 'drop-retired': dropRetired } = values;
  const kinds =
    values.set === undefined ? undefined : [oneOf('--set', values.set, Object.keys(SET_NAMES) as SetKind[])];
  const alg = values.alg === undefined ? undefined : oneOf<SigningAlg>('--alg', values.alg, ['Ed25519', 'ES256']);
  if (command !== 'rotate' && (dropRetired || force))
    throw new UserError('--drop-retired and --force belong to rotate.');
  if (command === 'create' && from !== undefined) throw new UserError('--from belongs to rotate and check.');
  if (to !== undefined && (command !== 'create' || write))
    throw new UserError('--to belongs to new sets, without --write.');
  if (kid !== undefined && !(dropRetired && kinds?.length === 1)) {
    throw new UserError('--kid belongs to --drop-retired of one --set.');
  }
  if (dropRetired && kinds?.[0] === 'pepper' && kid === undefined) {
    throw new UserError(
      'A pepper is dropped by name, with --kid, once no password needs it (--help says how to find out).',
    );
  }
  if (command === 'check') await check(kinds, from);
  else if (command === 'create') await create(kinds ?? TOKEN_SETS, { alg, path: write ? join(ROOT, '.dev.vars') : to });
  else await rotateSets({ kinds: kinds ?? TOKEN_SETS, alg, from, write, dropRetired, kid, force });
});

async function create(
  kinds: readonly SetKind[],
  { alg, path }: { alg: SigningAlg | undefined; path: string | undefined },
): Promise<void> {
  const sets: Sets = {};
  for (const kind of kinds) sets[kind] = await createKeySet(kind, alg);
  if (path === undefined) print(sets);
  else writeNew(path, sets);
  if (path === join(ROOT, '.dev.vars')) return;
  const names = kinds.map((kind) => SET_NAMES[kind]);
  const file = path ?? 'FILE';
  const environments = environmentsOf(readText(join(ROOT, 'wrangler.toml')) ?? '');
  const owner = environments.find((name) => basename(file) === keysFileOf(name));
  const env = owner === undefined ? '' : ` --env ${owner}`;
  console.error(
    path === undefined && kinds.length === 1
      ? `# New ${names[0]}. Set it with: npx wrangler secret put ${names[0]}`
      : `# New ${names.join(' and ')}. Check and set with: npm run deploy --${env} --secrets-file ${file}`,
  );
  console.error('# Keep a copy where secrets are kept: Cloudflare does not give them back, and a rotation needs them.');
}

/** Only .dev.vars may lose its former keys: nothing that anyone needs was signed or hashed by them, but for peppers. */
function writeNew(path: string, sets: Sets): void {
  const present = readText(path) ?? '';
  const development = path === join(ROOT, '.dev.vars');
  const lost = Object.keys(namedValues(sets)).filter((name) => parseVars(present).has(name));
  if (development && lost.includes(SET_NAMES.pepper)) {
    throw new UserError('.dev.vars has PEPPER_KEYS: with a new set no password could be checked. Rotate it.');
  }
  if (!development && lost.length > 0) throw new UserError(`${path} has ${lost.join(' and ')} already: rotate it.`);
  writeSecrets(path, setVars(present, namedValues(sets)));
  const former = development && lost.length > 0 ? ' It refuses the tokens of the former keys.' : '';
  console.error(`# Written to ${development ? '.dev.vars, for the next `npm run dev`' : path}.${former}`);
}

/** Tries every key, and lists them. */
async function check(kinds: readonly SetKind[] | undefined, from: string | undefined): Promise<void> {
  const source = await readSource(from);
  if (source.bare && kinds === undefined) {
    throw new UserError('That is one key set: say which with --set signing, refresh or pepper.');
  }
  const withPeppers = source.vars.has(SET_NAMES.pepper) ? ([...TOKEN_SETS, 'pepper'] as const) : TOKEN_SETS;
  for (const kind of kinds ?? withPeppers) {
    for (const { kid, state, since = 'an unknown time' } of setOf(source, kind).keys) {
      process.stdout.write(`${SET_NAMES[kind]}: key ${kid} works, ${state} since ${since}\n`);
    }
  }
}

function oneOf<const Value extends string>(option: string, given: string, allowed: readonly Value[]): Value {
  const found = allowed.find((value) => value === given);
  if (found === undefined) throw new UserError(`${option} must be ${allowed.join(' or ')}, not "${given}".`);
  return found;
}
