import { chmodSync, readFileSync, realpathSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { UserError } from './cli.ts';

/** `NAME='value'`, as dotenv, and so wrangler, reads it: a quoted value may span lines. */
const ASSIGNMENT = /^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*=[ \t]*('[^']*'|"(?:\\"|[^"])*"|`[^`]*`|[^#\n]*)/gm;

/** Reads assignments; of a name given twice the last counts. */
export function parseVars(text: string): Map<string, string> {
  const vars = new Map<string, string>();
  for (const [, name = '', raw = ''] of text.replace(/\r\n?/g, '\n').matchAll(ASSIGNMENT)) {
    const value = raw.trim();
    const quoted = /^(['"`])([\s\S]*)\1$/.exec(value);
    const inner = quoted?.[2] ?? value;
    vars.set(name, quoted?.[1] === '"' ? inner.replaceAll('\\n', '\n').replaceAll('\\r', '\r') : inner);
  }
  return vars;
}

/** Single quotes: nothing inside is expanded, so JSON stays as it is. */
export function assignment(name: string, value: string): string {
  if (/['\n\r]/.test(value)) throw new Error(`${name} has a character that single quotes cannot hold`);
  return `${name}='${value}'`;
}

/** Sets values: where a name stands already its value is replaced in place, others are appended. The rest stays. */
export function setVars(text: string, values: Readonly<Record<string, string>>): string {
  const left = new Map(Object.entries(values));
  const replaced = text.replace(/\r\n?/g, '\n').replace(ASSIGNMENT, (line, name: string) => {
    const value = values[name];
    if (value === undefined) return line;
    left.delete(name);
    return assignment(name, value);
  });
  const appended = [...left].map(([name, value]) => `${assignment(name, value)}\n`).join('');
  const gap = replaced === '' || replaced.endsWith('\n') || appended === '' ? '' : '\n';
  return `${replaced}${gap}${appended}`;
}

/** The file's text, `undefined` when there is none. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new UserError(`${path} cannot be read (${code}).`);
  }
}

/** Whether only its owner may read a file. Windows has no such modes, and says so of every file. */
export function isPrivate(path: string): boolean {
  if (process.platform === 'win32') return true;
  const present = statSync(path, { throwIfNoEntry: false });
  // No other user can read a pipe, such as <(…).
  return present === undefined || !present.isFile() || (present.mode & 0o077) === 0;
}

/** Makes a file of secrets readable by its owner alone. @returns whether others could read it until now */
export function makePrivate(path: string): boolean {
  if (isPrivate(path)) return false;
  try {
    chmodSync(path, statSync(path).mode & 0o700);
  } catch (error) {
    throw new UserError(
      `${path} can be read by others, and its mode cannot be changed (${(error as NodeJS.ErrnoException).code}).`,
    );
  }
  return true;
}

/** Writes secrets: for their owner only, and never half, because the keys in it cannot be had again. */
export function writeSecrets(path: string, text: string): void {
  try {
    const present = statSync(path, { throwIfNoEntry: false });
    const target = present === undefined ? path : realpathSync(path);
    // A name that .gitignore covers, beside the target, so that the rename stays on one file system.
    const temporary = join(dirname(target), `.dev.vars.${process.pid}`);
    writeFileSync(temporary, text, { mode: 0o600, flag: 'wx' });
    renameSync(temporary, target);
  } catch (error) {
    throw new UserError(`${path} cannot be written (${(error as NodeJS.ErrnoException).code}).`);
  }
}
