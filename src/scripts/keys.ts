import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';
import { parseArgs } from 'node:util';

import { ROOT, runProgram, UserError } from './cli.ts';
import { assignment, parseVars, readText, setVars, writeSecrets } from './devVars.ts';
import { createKey, createKeySet, dropRetired, KeySetError, parseKeySet, rotate, SET_NAMES } from './keySets.ts';
import type { KeySet, SetKind, SigningAlg, Step } from './keySets.ts';

const HELP = `npm run -s keys [-- [rotate] [options]]

Creates the key sets of the tokens, or rotates them by one step. The sets go to stdout, what to do with them to stderr.
The peppers of the passwords are a set, too, which is only touched with --set pepper.

  npm run -s keys                                  new sets, as NAME='…' lines
  npm run -s keys | npx wrangler secret bulk       … straight to Cloudflare (keep a copy: they cannot be read back)
  npm run -s keys -- --set signing                 one set, its JSON only, for: npx wrangler secret put SIGNING_KEYS
  npm run -s keys -- rotate                        the next step for the sets in .dev.vars
  npm run -s keys -- rotate --from FILE            … for those in FILE (NAME='…' lines, or with --set the JSON); - is stdin

A rotation takes three steps, each deployed before the next:
  1. rotate                   publishes a next key, which signs nothing yet
  2. rotate                   the next key becomes active, the active one retired: it still verifies what it signed
  3. rotate --drop-retired    drops the retired keys: tokens signed by them are refused from then on

Peppers (optional):
  npm run -s keys -- --set pepper                  a first set, for: npx wrangler secret put PEPPER_KEYS
  npm run -s keys -- rotate --set pepper           its next step, in the same order as above

  A password can be checked only with the pepper that it was hashed with, and gets the active one when its owner next
  logs in. So a retired pepper has no end of its own: it stays until you name it, and without PEPPER_KEYS, or with one
  of its keys lost, the accounts that need it get a 503 until it is back. Drop one only when this says 0 (of its kid,
  write each - as + and each _ as /):
    npx wrangler d1 execute gatehouse --remote --command "select count(*) from users where instr(password_hash, 'keyid=KID')"
  npm run -s keys -- rotate --set pepper --drop-retired --kid KID

Options:
  --set signing|refresh|pepper   only SIGNING_KEYS, REFRESH_KEYS or PEPPER_KEYS
  --alg Ed25519|ES256            algorithm of a new signing key (Ed25519; rotating, that of the active key)
  --from FILE                    where rotate reads the sets
  --write                        also write the sets to .dev.vars, or to the FILE of --from
  --drop-retired                 the third step
  --kid KID                      the one to drop; a pepper is dropped by its name only
`;

/** When a step may follow: what an older key signed, or a cached key list, must have run out. */
const AFTER: Record<Step['kind'], Record<SetKind, string>> = {
  published: {
    signing: 'Deploy it; rotate again after ten minutes: that long others may cache /.well-known/jwks.json.',
    refresh: 'Deploy it; rotate again once the deployment is everywhere (a few minutes).',
    pepper: 'Deploy it; rotate again once the deployment is everywhere (a few minutes).',
  },
  promoted: {
    signing: 'Deploy it; --drop-retired once the access tokens that it signed have expired (15 minutes by default).',
    refresh: 'Deploy it; --drop-retired once the sessions that it signed for have ended (30 days by default).',
    pepper: 'Deploy it, and keep the retired key: --help says when no password needs it any more.',
  },
  dropped: { signing: 'Deploy it.', refresh: 'Deploy it.', pepper: 'Deploy it.' },
};

interface Options {
  kinds: SetKind[];
  alg: SigningAlg | undefined;
  from: string | undefined;
  write: boolean;
  dropRetired: boolean;
  kid: string | undefined;
}

await runProgram(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      set: { type: 'string' },
      alg: { type: 'string' },
      from: { type: 'string' },
      write: { type: 'boolean', default: false },
      'drop-retired': { type: 'boolean', default: false },
      kid: { type: 'string' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }

  const [command = 'create', ...more] = positionals;
  if (more.length > 0 || (command !== 'create' && command !== 'rotate')) {
    throw new UserError(
      `There is no command "${positionals.join(' ')}": leave it out, or give rotate (--help explains).`,
    );
  }
  const options: Options = {
    kinds:
      values.set === undefined
        ? ['signing', 'refresh']
        : [oneOf('--set', values.set, Object.keys(SET_NAMES) as SetKind[])],
    alg: values.alg === undefined ? undefined : oneOf('--alg', values.alg, ['Ed25519', 'ES256']),
    from: values.from,
    write: values.write,
    dropRetired: values['drop-retired'],
    kid: values.kid,
  };
  if (command === 'create' && (options.from !== undefined || options.dropRetired)) {
    throw new UserError('--from and --drop-retired belong to rotate.');
  }
  if (options.kid !== undefined && !(options.dropRetired && options.kinds.length === 1)) {
    throw new UserError('--kid belongs to --drop-retired of one --set.');
  }
  if (options.dropRetired && options.kinds[0] === 'pepper' && options.kid === undefined) {
    throw new UserError(
      'A pepper is dropped by name, with --kid, once no password needs it (--help says how to tell).',
    );
  }
  await (command === 'create' ? create(options) : rotateSets(options));
});

async function create({ kinds, alg, write }: Options): Promise<void> {
  const path = join(ROOT, '.dev.vars');
  const present = readText(path) ?? '';
  if (write && kinds.includes('pepper') && parseVars(present).has(SET_NAMES.pepper)) {
    throw new UserError('.dev.vars has PEPPER_KEYS: with a new set no password could be checked. Rotate it.');
  }
  const sets: Sets = {};
  for (const kind of kinds) sets[kind] = await createKeySet(kind, alg);
  print(sets, kinds);
  if (write) {
    writeSecrets(path, setVars(present, namedValues(sets)));
    const former = kinds.includes('pepper') ? '' : ' It refuses the tokens of the former keys.';
    console.error(`# Written to .dev.vars, for the next \`npm run dev\`.${former}`);
    return;
  }
  console.error(
    kinds.length === 1
      ? `# New ${SET_NAMES[kinds[0]!]}. Set it with: npx wrangler secret put ${SET_NAMES[kinds[0]!]}`
      : '# New key sets. Set both with `npx wrangler secret bulk`, or what stands between the quotes with `npx wrangler secret put NAME`.',
  );
  console.error('# Keep a copy where secrets are kept: Cloudflare does not give them back, and a rotation needs them.');
}

async function rotateSets(options: Options): Promise<void> {
  const { kinds, alg, from, write, dropRetired: dropping, kid } = options;
  const source = await readSource(from);
  const bare = source.text.trimStart().startsWith('{');
  if (bare && kinds.length > 1)
    throw new UserError('That is one key set: say which with --set signing, refresh or pepper.');

  const vars = parseVars(source.text);
  const sets: Sets = {};
  for (const kind of kinds) {
    const present = parseSet(kind, bare ? source.text : vars.get(SET_NAMES[kind]), source.name);
    const active = present.keys.find((key) => key.state === 'active')!;
    const algorithm = alg ?? (active.alg === 'ES256' ? 'ES256' : 'Ed25519');
    const { set, step } = dropping
      ? dropRetired(present, kid)
      : await rotate(present, () => createKey(kind, 'next', algorithm));
    sets[kind] = set;
    console.error(`# ${SET_NAMES[kind]}: ${describe(step)} ${AFTER[step.kind][kind]}`);
  }
  print(sets, kinds);
  if (!write) return;
  if (source.path === undefined) throw new UserError('--write cannot write to stdin: give a file with --from.');
  writeSecrets(source.path, bare ? `${JSON.stringify(sets[kinds[0]!])}\n` : setVars(source.text, namedValues(sets)));
  console.error(`# Written to ${source.name}${from === undefined ? ', for the next `npm run dev`' : ''}.`);
}

type Sets = Partial<Record<SetKind, KeySet>>;

async function readSource(from: string | undefined): Promise<{ name: string; path?: string; text: string }> {
  if (from === '-') return { name: 'stdin', text: await readAll(process.stdin) };
  const [name, path] = from === undefined ? ['.dev.vars', join(ROOT, '.dev.vars')] : [from, from];
  const text = readText(path);
  if (text === undefined) throw new UserError(`There is no ${name}. Give the file that holds the sets with --from.`);
  return { name, path, text };
}

function parseSet(kind: SetKind, text: string | undefined, where: string): KeySet {
  if (text === undefined) throw new UserError(`${where} has no ${SET_NAMES[kind]}.`);
  try {
    return parseKeySet(kind, text);
  } catch (error) {
    if (!(error instanceof KeySetError)) throw error;
    throw new UserError(`${SET_NAMES[kind]} in ${where} ${error.message}.`);
  }
}

function namedValues(sets: Sets): Record<string, string> {
  return Object.fromEntries(
    Object.entries(sets).map(([kind, set]) => [SET_NAMES[kind as SetKind], JSON.stringify(set)]),
  );
}

function print(sets: Sets, kinds: readonly SetKind[]): void {
  const lines = Object.entries(namedValues(sets)).map(([name, value]) =>
    kinds.length === 1 ? value : assignment(name, value),
  );
  process.stdout.write(`${lines.join('\n')}\n`);
}

function describe(step: Step): string {
  if (step.kind === 'published') return `${step.next} is published as the next key.`;
  if (step.kind === 'promoted') return `${step.active} is active now, ${step.retired} retired.`;
  return step.kids.length === 0 ? 'there was no such retired key.' : `dropped ${step.kids.join(', ')}.`;
}

function oneOf<const Value extends string>(option: string, given: string, allowed: readonly Value[]): Value {
  const found = allowed.find((value) => value === given);
  if (found === undefined) throw new UserError(`${option} must be ${allowed.join(' or ')}, not "${given}".`);
  return found;
}
