import { expect, test } from 'vitest';

import { tappedD1 } from '../support/database';
import { inRequest, isolateFor } from '../support/request';

test.each([
  ['stops when the breaker opens while D1 is read, after failed calls', true, { reason: 'breaker' }],
  ['goes on for a probe, which ignores the breaker', false, undefined],
])('the delivery of all that is undelivered %s', async (_, whileClosed, failure) => {
  const isolate = isolateFor();
  const { breaker } = isolate;
  const db = tappedD1(async (query) => {
    const rows = await query();
    while (breaker.state === 'closed') breaker.record(false, breaker.ticket());
    return rows;
  });
  const outcome = await inRequest(
    ({ services }) =>
      services.outbox.deliverPending({ whileClosed }).then(
        () => undefined,
        (error: unknown) => error,
      ),
    { isolate, db },
  );
  expect(breaker.state).toBe('open');
  expect(outcome).toEqual(failure && expect.objectContaining(failure));
});
