import { createHash } from 'node:crypto';

/** Deeper arguments are refused, because a cycle has no end. */
const MAX_DEPTH = 64;

/**
 * The canonical text of a value: keys sorted, types distinguished (`1` and `"1"`, a missing and an undefined member, a hole
 * and `undefined`, a date and its text), so that two different sets of arguments never share an entry.
 *
 * @throws {TypeError} for anything but plain objects, arrays, dates and primitives
 */
export function canonicalize(value: unknown): string {
  return textOf(value, 0);
}

function textOf(value: unknown, depth: number): string {
  switch (typeof value) {
    case 'string':
      return `s${JSON.stringify(value)}`;
    case 'number':
      return `n${Object.is(value, -0) ? '-0' : String(value)}`;
    case 'bigint':
      return `i${value}`;
    case 'boolean':
      return `b${value}`;
    case 'undefined':
      return 'u';
    case 'object':
      break;
    case 'function':
    case 'symbol':
      throw new TypeError(`a ${typeof value} cannot be part of a cache key`);
  }
  if (value === null) return 'z';
  if (depth >= MAX_DEPTH) throw new TypeError('a cache key must not be cyclic or too deeply nested');
  // The text would not contain such a member: two different values would share an entry.
  if (Object.getOwnPropertySymbols(value).length > 0) throw new TypeError('a symbol cannot be part of a cache key');
  const names = Object.keys(value);
  if (Array.isArray(value)) return arrayText(value, names, depth);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Date.prototype && names.length === 0) return `d${(value as Date).getTime()}`;
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError('only plain objects, arrays, dates and primitives can be part of a cache key');
  }
  const members = value as Record<string, unknown>;
  return `{${names
    .sort()
    .map((name) => `${JSON.stringify(name)}:${textOf(members[name], depth + 1)}`)
    .join(',')}}`;
}

function arrayText(items: readonly unknown[], names: readonly string[], depth: number): string {
  // `map` passes over holes; the loop sees them.
  const texts: string[] = [];
  for (let index = 0; index < items.length; index += 1)
    texts.push(index in items ? textOf(items[index], depth + 1) : 'h');
  if (names.length > texts.filter((text) => text !== 'h').length) {
    throw new TypeError('an array with extra members cannot be part of a cache key');
  }
  return `[${texts.join(',')}]`;
}

/** SHA-256, URL-safe. */
export function hashCanonical(canonical: string): string {
  return createHash('sha256').update(canonical).digest('base64url');
}
