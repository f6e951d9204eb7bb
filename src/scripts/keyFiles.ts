import { fchmodSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';

import { ROOT, UserError } from './cli.ts';
import { assignment, isPrivate, parseVars, readText, setVars, writeSecrets } from './devVars.ts';
import { KeySetError, parseKeySet, SET_NAMES } from './keySets.ts';
import type { KeySet, SetKind } from './keySets.ts';
import type { Lifetimes } from './rotation.ts';

export type Sets = Partial<Record<SetKind, KeySet>>;

/** Where sets are read from: a file of `NAME='…'` lines, or the JSON of one set. */
export interface Source {
  name: string;
  /** `undefined` for stdin. */
  path?: string;
  text: string;
  /** It is the JSON of one set. */
  bare: boolean;
  vars: ReadonlyMap<string, string>;
}

/** The file that holds the secrets of an environment; `''` is production. */
export const keysFileOf = (environment: string): string =>
  environment === '' ? 'keys.env' : `keys.${environment}.env`;

export async function readSource(from: string | undefined): Promise<Source> {
  if (from === '-') return sourceOf('stdin', await readAll(process.stdin));
  const [name, path] = from === undefined ? ['.dev.vars', join(ROOT, '.dev.vars')] : [from, from];
  const text = readText(path);
  if (text === undefined) throw new UserError(`There is no ${name}. Give the file that holds the sets with --from.`);
  if (!isPrivate(path)) console.error(`# Other users of this machine may read ${name}: chmod 600 ${name}`);
  return { ...sourceOf(name, text), path };
}

function sourceOf(name: string, text: string): Source {
  return { name, text, bare: text.trimStart().startsWith('{'), vars: parseVars(text) };
}

/** @throws {UserError} names every key that is wrong, and why */
export function setOf({ name, text, bare, vars }: Source, kind: SetKind): KeySet {
  const value = bare ? text : vars.get(SET_NAMES[kind]);
  if (value === undefined) throw new UserError(`${name} has no ${SET_NAMES[kind]}.`);
  try {
    return parseKeySet(kind, value);
  } catch (error) {
    if (!(error instanceof KeySetError)) throw error;
    throw new UserError(`${SET_NAMES[kind]} in ${name}: ${error.message}.`);
  }
}

/** Writes the sets where they were read. */
export function saveTo({ name, path, text, bare }: Source, sets: Sets): void {
  if (path === undefined) throw new UserError('--write cannot write to stdin: give a file with --from.');
  const [only] = Object.values(sets);
  writeSecrets(path, bare ? `${JSON.stringify(only)}\n` : setVars(text, namedValues(sets)));
  console.error(`# Written to ${name}.`);
}

export function namedValues(sets: Sets): Record<string, string> {
  return Object.fromEntries(
    Object.entries(sets).map(([kind, set]) => [SET_NAMES[kind as SetKind], JSON.stringify(set)]),
  );
}

/** Prints private keys. A file that the shell has opened for them gets the mode that its umask may not have given it. */
export function print(sets: Sets): void {
  const entries = Object.entries(namedValues(sets));
  const lines = entries.map(([name, value]) => (entries.length === 1 ? value : assignment(name, value)));
  if (process.platform !== 'win32' && fstatSync(1).isFile()) fchmodSync(1, 0o600);
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** The defaults of `ACCESS_TOKEN_TTL_SECONDS` and `REFRESH_ABSOLUTE_TTL_SECONDS`. */
export const DEFAULT_LIFETIMES = { signing: 900, refresh: 30 * 86_400, pepper: undefined } as const;

/**
 * How long tokens live by the settings: those of `vars`, and those of wrangler.toml, which alone a deployment has. Of
 * several, as environments may have, the longest counts.
 */
export function lifetimesOf(vars: ReadonlyMap<string, string>, wranglerToml: string): Lifetimes {
  const longest = (name: string, fallback: number) => {
    const written = wranglerToml.matchAll(new RegExp(String.raw`^\s*${name}\s*=\s*["']?(\d+)`, 'gm'));
    const given = [vars.get(name) ?? '', ...Array.from(written, ([, digits]) => digits ?? '')];
    const seconds = given.filter((text) => /^\d+$/.test(text)).map(Number);
    return seconds.length > 0 ? Math.max(...seconds) : fallback;
  };
  return {
    signing: longest('ACCESS_TOKEN_TTL_SECONDS', DEFAULT_LIFETIMES.signing),
    refresh: longest('REFRESH_ABSOLUTE_TTL_SECONDS', DEFAULT_LIFETIMES.refresh),
    pepper: undefined,
  };
}
