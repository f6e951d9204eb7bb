import { pages } from './pages.ts';

const { text } = pages.find(({ name }) => name === 'docs/data.md')!;

/** The rows of the table below a heading. */
function rowsBelow(heading: string): string[][] {
  const section = text.slice(text.indexOf(`\n## ${heading}\n`)).split(/\n## /)[1] ?? '';
  const rows = section.match(/^\| `.*\|$/gm) ?? [];
  return rows.map((row) => row.slice(2, -2).split(' | '));
}

const namesIn = (cell = '') => Array.from(cell.matchAll(/`([^`]+)`/g), ([, name = '']) => name);

/** The tables of D1 that the page describes. */
export const tables = rowsBelow('D1').flatMap(([cell]) => namesIn(cell));

/** The kinds of keys in Redis that the page describes: by the first one of their row. */
const kinds = rowsBelow('Redis')
  .flatMap(([cell, , , ttl = '']) => {
    const [first = '', ...others] = namesIn(cell);
    const whole = others.map((name) => name.replace(/^…(?=:)/, first.replace(/:totals$/, '')));
    return [first, ...whole].map((name) => ({ name, row: first, ttl }));
  })
  // What an app stores by itself has any name.
  .filter(({ name }) => name !== 'namespace:key')
  .map(({ name, row, ttl }) => ({
    row,
    ttl,
    length: name.replaceAll(/[…{}]|\b(?:user|hash|name|job|policy)\b/g, '').length,
    pattern: new RegExp(
      `^${name
        .replaceAll('.', String.raw`\.`)
        .replaceAll(/\{(?:user|hash|name|job|…)\}/g, '{*}')
        .replaceAll(/[{}]/g, String.raw`\$&`)
        .replaceAll('*', '[^}]+')
        .replaceAll('policy', '[^:]+')
        .replaceAll('…', '.+')}$`,
    ),
  }))
  .toSorted((a, b) => b.length - a.length);

export const rows = [...new Set(kinds.map(({ row }) => row))];

/** What a row says of the time that its keys live. */
export const lifeOf = (row: string): string => kinds.find((kind) => kind.row === row)?.ttl ?? '';

/**
 * The row of a key.
 *
 * @param key without `KEY_PREFIX`
 */
export const rowOf = (key: string): string | undefined => kinds.find(({ pattern }) => pattern.test(key))?.row;
