import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unstable_getVarsForDev as getVarsForDev } from 'wrangler';

import { UserError } from '../../../src/scripts/cli.ts';
import { assignment, parseVars, readText, setVars, writeSecrets } from '../../../src/scripts/devVars.ts';

const JSON_VALUE = '{"keys":[{"kid":"a#b","d":"x=y $HOME `z`"}]}';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'gatehouse-vars-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** What wrangler itself makes of the text. */
function asWranglerReads(text: string): Record<string, unknown> {
  writeFileSync(join(directory, '.dev.vars'), text);
  const bindings = getVarsForDev(join(directory, 'wrangler.toml'), undefined, {}, undefined, true, undefined);
  return Object.fromEntries(
    Object.entries(bindings).map(([name, binding]) => [name, (binding as { value: unknown }).value]),
  );
}

describe('parseVars', () => {
  it.each([
    ['quotes of each kind', `A='1 # 2'\nB="3\\n4"\nC=\`5\`\nD=6 # seven\n`],
    ['a value over several lines', `A='{\n  "keys": []\n}'\nB=2\n`],
    ['exports, spaces, comments, CRLF', `# C=9\r\n  export A = 'x'  # why\r\n\r\nB=  two words  \r\n`],
    ['an empty value', `A=\nB=''\nC=1`],
    ['a name given twice', `A=1\nA=2\n`],
    ['what was written for JSON', `${assignment('A', JSON_VALUE)}\n`],
  ])('reads %s as wrangler does', (_, text) => {
    const vars = Object.fromEntries(parseVars(text));
    expect(Object.keys(vars).length).toBeGreaterThan(0);
    expect(vars).toEqual(asWranglerReads(text));
  });
});

describe('setVars', () => {
  it('appends missing names and leaves every other byte', () => {
    const text = `# mine\nA='1'\nLIMIT_API=5/1m # low`;
    expect(setVars(text, { B: '2' })).toBe(`${text}\nB='2'\n`);
    expect(setVars(text, {})).toBe(text);
  });

  it('replaces a value in place, even one over several lines, and its comment stays', () => {
    const text = `A='{\n"k": 1\n}' # key\n#B=0\nB=2\n`;
    expect(setVars(text, { A: JSON_VALUE, B: '3' })).toBe(`A='${JSON_VALUE}' # key\n#B=0\nB='3'\n`);
  });

  it('writes values that wrangler reads back', () => {
    const values = { A: JSON_VALUE, B: 'http://127.0.0.1:8079', C: '$1 $& \\n' };
    expect(asWranglerReads(setVars('A=old\n', values))).toEqual(values);
  });

  it('refuses a value that single quotes cannot hold', () => {
    expect(() => setVars('', { A: `it's` })).toThrow('single quotes');
  });
});

describe('writeSecrets', () => {
  it('makes a file that only its owner reads, and leaves nothing beside it', () => {
    const path = join(directory, '.dev.vars');
    writeSecrets(path, 'A=1\n');
    expect(readText(path)).toBe('A=1\n');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory)).toEqual(['.dev.vars']);
  });

  it('makes a file readable by its owner alone, and writes through a link', () => {
    const [target, link] = [join(directory, 'secrets'), join(directory, '.dev.vars')];
    writeFileSync(target, 'A=1\n', { mode: 0o644 });
    symlinkSync(target, link);
    writeSecrets(link, 'A=2\n');
    expect(readFileSync(target, 'utf8')).toBe('A=2\n');
    expect(statSync(target).mode & 0o777).toBe(0o600);
  });

  it('never has a file that others could read, whatever the umask', () => {
    const path = join(directory, 'keys.env');
    const before = process.umask(0);
    try {
      writeSecrets(path, 'A=1\n');
    } finally {
      process.umask(before);
    }
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('says in one line what is in the way', () => {
    expect(() => writeSecrets(join(directory, 'none/.dev.vars'), '')).toThrow(UserError);
    expect(() => readText(directory)).toThrow(UserError);
    expect(readText(join(directory, 'none'))).toBeUndefined();
  });
});
