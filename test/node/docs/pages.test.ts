import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { pages, ROOT } from './pages.ts';

const BLOCK = /^```(\w*)[^\n]*\n(.*?)^```$/gms;
const proseOf = (text: string) =>
  text.replaceAll(BLOCK, '').replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, ''));

/** The anchors of a page's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const headings = text.replaceAll(BLOCK, '').matchAll(/^#{1,6} (.+)$/gm);
  return new Set(
    Array.from(headings, ([, title = '']) =>
      title
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\p{M} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };

/** `npm run deploy` hands these on to wrangler. */
const WRANGLERS = new Set(['--var']);

/** What a script takes: the options of its `parseArgs`, those that its help explains, and the words of its commands. */
function argumentsOf(name: string): Set<string> {
  const [, file] = /^node (?:--\S+ )*(\S+\.ts)$/.exec(scripts[name] ?? '') ?? [];
  if (file === undefined) return new Set();
  const source = readFileSync(join(ROOT, file), 'utf8');
  const options = Array.from(source.matchAll(/'?([a-z][\w-]*)'?: \{ type: '/g), ([, option]) => `--${option}`);
  const [help = ''] = /^const HELP = `[^`]*(?:\\`[^`]*)*`;$/m.exec(source) ?? [];
  return new Set([...options, ...(help.match(/--?\w[\w-]*|\b[a-z][a-z-]+\b/g) ?? [])]);
}

/** Scripts whose first word is a command, not a name that the reader chooses. */
const WITH_COMMANDS = new Set(['admin', 'keys']);

test('there are pages', () => {
  expect(pages.map(({ name }) => name)).toEqual(expect.arrayContaining(['README.md', 'docs/outages.md']));
});

describe.each(pages)('$name', ({ path, text }) => {
  test('its links lead to files and headings that exist', () => {
    const broken = Array.from(proseOf(text).matchAll(/\]\(([^)\s]+)\)/g), ([, link = '']) => link).filter((link) => {
      if (/^(?:https?|mailto):/.test(link)) return false;
      const [file = '', anchor] = link.split('#');
      const target = file === '' ? path : join(dirname(path), decodeURI(file));
      if (!existsSync(target)) return true;
      if (anchor === undefined || statSync(target).isDirectory()) return false;
      return !anchorsOf(readFileSync(target, 'utf8')).has(anchor);
    });
    expect(broken).toEqual([]);
  });

  test('the npm scripts that it names exist', () => {
    const named = Array.from(text.matchAll(/\bnpm run (?:-s )?([\w:]+)/g), ([, name = '']) => name);
    expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
  });

  test('the scripts know the options and the commands that it gives them', () => {
    const unknown = Array.from(
      text.matchAll(/\bnpm run (?:-s )?(\w+) -- ([^\n`#|&>)]+)/g),
      ([, name = '', given = '']) => {
        const known = argumentsOf(name);
        const words = given.trim().split(/[\s=]+/);
        const options = words.filter((word) => word.startsWith('-') && !(name === 'deploy' && WRANGLERS.has(word)));
        const commands = WITH_COMMANDS.has(name) && !words[0]!.startsWith('-') ? [words[0]!] : [];
        return [...options, ...commands].filter((word) => !known.has(word)).map((word) => `${name} ${word}`);
      },
    );
    expect(unknown.flat()).toEqual([]);
  });

  test('the files that it names exist', () => {
    const named = Array.from(
      text.matchAll(/`((?:src|test|docs)\/[\w./-]+\.(?:ts|json|md|sql|toml))`/g),
      ([, name = '']) => name,
    );
    expect(named.filter((name) => !existsSync(join(ROOT, name)))).toEqual([]);
  });
});
