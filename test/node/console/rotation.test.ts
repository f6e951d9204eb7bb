import { expect, test } from 'vitest';

import { rotationOf } from '../../../src/console/rotation.ts';

const set = (name: string, step: 'publish' | 'promote' | 'drop') => ({ name, next: { step, safeAt: null } });

test('the next step of a rotation is taken in the file that the Worker of this page has its keys from', () => {
  expect(rotationOf(set('SIGNING_KEYS', 'promote'), 'api.gatehouse.dev')).toEqual({
    command: 'npm run -s keys -- rotate --set signing --from keys.env --write',
    afterwards: 'Then deploy at once, with --secrets-file keys.env.',
  });
  for (const hostname of ['127.0.0.1', 'localhost', '[::1]']) {
    expect(rotationOf(set('REFRESH_KEYS', 'drop'), hostname)).toEqual({
      command: 'npm run -s keys -- rotate --set refresh --drop-retired --write',
      afterwards: 'Then restart npm run dev.',
    });
  }
});
