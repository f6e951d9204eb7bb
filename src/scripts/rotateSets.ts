import { join, resolve } from 'node:path';

import { ROOT, UserError } from './cli.ts';
import { readText } from './devVars.ts';
import { lifetimesOf, print, readSource, saveTo, setOf } from './keyFiles.ts';
import type { Sets } from './keyFiles.ts';
import { createKey, SET_NAMES } from './keySets.ts';
import type { KeySet, SetKind, SigningAlg } from './keySets.ts';
import { dropRetired, dropsTooEarly, promotesTooEarly, rotate } from './rotation.ts';
import type { Lifetimes, Step, TooEarly } from './rotation.ts';

export interface RotateOptions {
  kinds: readonly SetKind[];
  /** Of a new signing key; by default that of the active one. */
  alg: SigningAlg | undefined;
  from: string | undefined;
  write: boolean;
  dropRetired: boolean;
  kid: string | undefined;
  /** Takes the step before its safe time. */
  force: boolean;
}

const KEEP_PEPPER = 'Keep the retired key: --help says when no password needs it any more.';

/** When a step may follow: once every isolate knows the new key, or what an older key signed has run out. */
const AFTER: Record<Exclude<Step['kind'], 'none'>, Record<SetKind, string>> = {
  published: {
    signing: 'Deploy it now; rotate again after ten minutes: that long others may cache /.well-known/jwks.json.',
    refresh: 'Deploy it now; rotate again once the deployment is everywhere (ten minutes).',
    pepper: 'Deploy it now; rotate again once the deployment is everywhere (ten minutes).',
  },
  promoted: {
    signing: 'Deploy it now; --drop-retired once the access tokens that it signed have expired.',
    refresh: 'Deploy it now; --drop-retired once the sessions that it signed for have ended.',
    pepper: `Deploy it. ${KEEP_PEPPER}`,
  },
  dropped: { signing: 'Deploy it.', refresh: 'Deploy it.', pepper: 'Deploy it.' },
};

/** The consequence of dropping a key too early. */
const ENDS: Record<SetKind, string> = {
  signing: 'access tokens that it signed are still in use: their clients get 401 and must refresh',
  refresh: 'sessions still depend on it: their owners are signed out',
  pepper: 'passwords depend on it',
};

/** Rotates sets by one step; refuses, and changes nothing, when the step comes too early for one of them. */
export async function rotateSets(options: RotateOptions): Promise<void> {
  const { kinds, from, write, force } = options;
  const source = await readSource(from);
  if (source.bare && kinds.length > 1) {
    throw new UserError('That is one key set: say which with --set signing, refresh or pepper.');
  }
  const lifetimes = lifetimesOf(source.vars, readText(join(ROOT, 'wrangler.toml')) ?? '');
  const nowMs = Date.now();
  const present = kinds.map((kind) => [kind, setOf(source, kind)] as const);
  if (!force) {
    assertDue(present, { ...options, lifetimes, nowMs });
    if (!options.dropRetired) assertDropped(present, lifetimes);
  }

  const local = source.path !== undefined && resolve(source.path) === join(ROOT, '.dev.vars');
  const sets: Sets = {};
  let changed = false;
  for (const [kind, before] of present) {
    const { set, step } = await stepOf(kind, before, options, nowMs);
    sets[kind] = set;
    changed ||= step.kind !== 'none';
    console.error(`# ${SET_NAMES[kind]}: ${describe(step)}${local ? afterLocally(step, kind) : after(step, kind)}`);
  }
  if (!changed) console.error('# Nothing was changed, so there is nothing to deploy.');
  // Do not print keys that are written to a file: private keys must not stay in a terminal's history.
  if (!write) print(sets);
  else if (changed) {
    saveTo(source, sets);
    if (local)
      console.error(
        '# A running `npm run dev` keeps the former keys: restart it. --force takes the next step at once.',
      );
  }
}

const after = (step: Step, kind: SetKind) => (step.kind === 'none' ? '' : ` ${AFTER[step.kind][kind]}`);

/** Nothing is deployed from .dev.vars. */
const afterLocally = (step: Step, kind: SetKind) =>
  step.kind === 'promoted' && kind === 'pepper' ? ` ${KEEP_PEPPER}` : '';

/**
 * The third call of `rotate` for a set would begin another rotation: most likely `--drop-retired` was meant.
 *
 * @throws {UserError} with the third step's command
 */
function assertDropped(sets: readonly (readonly [SetKind, KeySet])[], lifetimes: Lifetimes): void {
  const open = sets.flatMap(([kind, { keys }]) => {
    // Retired peppers stay until no password needs them, over several rotations.
    if (lifetimes[kind] === undefined || keys.some(({ state }) => state === 'next')) return [];
    return keys
      .filter(({ state }) => state === 'retired')
      .map(({ kid }) => `${SET_NAMES[kind]}: key ${kid} is retired and was not dropped.`);
  });
  if (open.length === 0) return;
  throw new UserError(
    `This would begin another rotation, so nothing was changed. ${open.join(' ')} ` +
      'The third step is rotate --drop-retired. (--set NAME takes the step for one set alone, --force begins another rotation.)',
  );
}

async function stepOf(kind: SetKind, set: KeySet, { dropRetired: dropping, kid, alg }: RotateOptions, nowMs: number) {
  if (dropping) {
    const dropped = dropRetired(set, kid);
    if (dropped.step.kind === 'none' && kid !== undefined) {
      throw new UserError(`${SET_NAMES[kind]} has no retired key ${kid}, so nothing was changed.`);
    }
    return dropped;
  }
  const active = set.keys.find((key) => key.state === 'active')!;
  const algorithm = alg ?? (active.kty === 'EC' ? 'ES256' : 'Ed25519');
  const next = set.keys.find((key) => key.state === 'next');
  if (next?.kty !== undefined && next.kty !== 'oct' && next.d === undefined) {
    throw new UserError(`${SET_NAMES[kind]}: key ${next.kid} has no private part here, so it cannot become active.`);
  }
  return rotate(set, () => createKey(kind, 'next', algorithm, nowMs), nowMs);
}

function assertDue(
  sets: readonly (readonly [SetKind, KeySet])[],
  { dropRetired: dropping, kid, lifetimes, nowMs }: RotateOptions & { lifetimes: Lifetimes; nowMs: number },
): void {
  const early = sets.flatMap(([kind, set]) => {
    const lifetimeSeconds = lifetimes[kind];
    // A pepper is dropped by name, after a count of its passwords: no date shows that it is unused.
    if (dropping && lifetimeSeconds === undefined) return [];
    const found = dropping
      ? dropsTooEarly(set, { lifetimeSeconds: lifetimeSeconds ?? 0, kid, nowMs })
      : [promotesTooEarly(set, nowMs) ?? []].flat();
    return found.map((one) => refusal(kind, one, dropping));
  });
  if (early.length === 0) return;
  throw new UserError(`Too early, so nothing was changed. ${early.join(' ')} (--force takes the step at once.)`);
}

function refusal(kind: SetKind, { kid, atMs }: TooEarly, dropping: boolean): string {
  const name = `${SET_NAMES[kind]}: key ${kid}`;
  if (atMs === undefined) {
    return `${name} does not say since when it is ${dropping ? 'retired' : 'published'}: add "since" with that time, such as "${new Date().toISOString()}".`;
  }
  const date = new Date(Math.ceil(atMs / 1_000) * 1_000).toISOString().replace('.000Z', 'Z');
  return dropping
    ? `${name} may be dropped from ${date} on; until then ${ENDS[kind]}.`
    : `${name} may become active from ${date} on; until then isolates that do not know it yet would refuse what it signs.`;
}

function describe(step: Step): string {
  if (step.kind === 'published') return `${step.next} is published as the next key.`;
  if (step.kind === 'promoted') return `${step.active} is active now, ${step.retired} retired.`;
  return step.kind === 'none' ? 'has no retired key.' : `dropped ${step.kids.join(', ')}.`;
}
