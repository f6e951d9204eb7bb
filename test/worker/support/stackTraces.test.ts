import { expect, test } from 'vitest';

/** Gone after the transformation, with the lines of it. */
interface Removed {
  name: string;
}

const failure: Removed = new Error('here'); // line 8

test('a stack trace names the line of the source', () => {
  const [, line] = /stackTraces\.test\.ts:(\d+):/.exec((failure as Error).stack ?? '') ?? [];
  expect(line).toBe('8');
});
