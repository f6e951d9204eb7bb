import { describe, expect, test } from 'vitest';

import { canonicalize, hashCanonical } from '../../../../src/services/cache/canonical';

describe('canonicalize', () => {
  test('knows neither order nor identity', () => {
    expect(canonicalize({ a: 1, b: [{ d: 2, c: 3 }] })).toBe(canonicalize({ b: [{ c: 3, d: 2 }], a: 1 }));
  });

  test('no two different values share a text', () => {
    const values = [
      1,
      '1',
      1n,
      true,
      'true',
      null,
      'null',
      undefined,
      'u',
      '',
      [],
      {},
      [[]],
      [1],
      ['1'],
      [1, 2],
      ['1,2'],
      [[1], 2],
      { a: undefined },
      { a: null },
      { a: 1 },
      { a: '1' },
      { 'a":n1,"b': 2 },
      { a: 1, b: 2 },
      0,
      -0,
      Number.NaN,
      'NaN',
      new Date(0),
      0n,
      new Date(0).toISOString(),
      Infinity,
      [undefined],
      [null],
      's"x"',
      '"x"',
    ];
    const texts = values.map(canonicalize);
    expect(new Set(texts).size).toBe(values.length);
  });

  const cyclic: unknown[] = [];
  cyclic.push(cyclic);

  test.each([
    [() => 1],
    [Symbol('x')],
    [new Map()],
    [/x/],
    [Object.create({ inherited: 1 }) as object],
    [Object.assign([1], { extra: 1 })],
    [{ [Symbol('x')]: 1 }],
    [Object.assign(new Date(0), { extra: 1 })],
    // oxlint-disable-next-line no-new-wrappers -- what a key must not be made of
    [new String('x')],
    [cyclic],
  ])('refuses %o', (value) => {
    expect(() => canonicalize({ value })).toThrow(TypeError);
  });
});

/** Reproducible: xorshift32. */
function random(seed: number) {
  let state = seed;
  return (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const NAMES = ['a', 'b', '__proto__', 'constructor', 'toString', '', '0', 'a":n1,"b', '\u0000', 'é', '\ud800'];
const TEXTS = [
  '',
  '0',
  '1',
  'null',
  'true',
  'undefined',
  'n1',
  's"x"',
  ',',
  '[',
  ']',
  '{}',
  'h',
  '-0',
  '\ud800',
  '\udfff',
  '1970-01-01T00:00:00.000Z',
];
const NUMBERS = [0, -0, 1, -1, 0.1, 1e21, 2 ** 53, Number.NaN, Infinity, -Infinity, 5e-324];

/** A value, and a text that a structural comparison of its own has for it. */
function anything(next: (below: number) => number, depth: number): { value: unknown; shape: string } {
  switch (next(depth > 3 ? 7 : 10)) {
    case 0: {
      const value = TEXTS[next(TEXTS.length)] ?? '';
      return { value, shape: `text ${[...Array(value.length).keys()].map((i) => value.charCodeAt(i)).join('.')};` };
    }
    case 1: {
      const value = NUMBERS[next(NUMBERS.length)] ?? 0;
      return { value, shape: `number ${Object.is(value, -0) ? 'minus 0' : value};` };
    }
    case 2: {
      const value = BigInt(next(3)) - 1n;
      return { value, shape: `bigint ${value};` };
    }
    case 3: {
      const value = next(2) === 0;
      return { value, shape: `boolean ${value};` };
    }
    case 4:
      return { value: null, shape: 'null;' };
    case 5:
      return { value: undefined, shape: 'undefined;' };
    case 6: {
      const value = new Date(next(4) === 0 ? Number.NaN : next(3));
      return { value, shape: `date ${value.getTime()};` };
    }
    case 7:
    case 8: {
      const length = next(4);
      const value: unknown[] = Array.from({ length });
      const shapes = value.map((_, index) => {
        if (next(5) === 0) {
          // A hole is neither undefined nor nothing.
          Reflect.deleteProperty(value, index);
          return 'hole;';
        }
        const item = anything(next, depth + 1);
        value[index] = item.value;
        return item.shape;
      });
      return { value, shape: `array of ${length}: (${shapes.join('')})` };
    }
    default: {
      const members = new Map<string, { value: unknown; shape: string }>();
      for (let left = next(4); left > 0; left -= 1)
        members.set(NAMES[next(NAMES.length)] ?? '', anything(next, depth + 1));
      const value = next(2) === 0 ? {} : (Object.create(null) as object);
      const define = ([name, member]: [string, { value: unknown }]) =>
        Object.defineProperty(value, name, { value: member.value, enumerable: true, configurable: true });
      // The order in which members were written is no part of a value.
      const written = [...members];
      for (const entry of next(2) === 0 ? written : written.toReversed()) define(entry);
      const shapes = written
        .map(([name, { shape }]) => `${NAMES.indexOf(name)}: ${shape}`)
        .toSorted((a, b) => (a < b ? -1 : 1));
      return { value, shape: `object (${shapes.join('')})` };
    }
  }
}

test.each([[1], [2], [3]])(
  'no two of 40,000 random argument sets share a key unless they are the same (seed %d)',
  (seed) => {
    const next = random(seed * 2_654_435_761);
    const shapeOf = new Map<string, string>();
    const hashOf = new Map<string, string>();
    for (let tries = 0; tries < 40_000; tries += 1) {
      const { value, shape } = anything(next, 0);
      const hash = hashCanonical(canonicalize(value));
      const [knownShape, knownHash] = [shapeOf.get(hash), hashOf.get(shape)];
      if ((knownShape ?? shape) !== shape || (knownHash ?? hash) !== hash) {
        expect.fail(`${shape} and ${knownShape ?? knownHash} of ${canonicalize(value)}`);
      }
      shapeOf.set(hash, shape);
      hashOf.set(shape, hash);
    }
    // Enough of them were different, and enough were the same.
    expect(shapeOf.size).toBeGreaterThan(5_000);
    expect(shapeOf.size).toBeLessThan(35_000);
  },
);
