import { afterEach, expect, test, vi } from 'vitest';

import type { PostgresClient, Query } from '../../../src/db/postgres/client.ts';
import { inTransaction } from '../../../src/db/postgres/transaction.ts';

afterEach(() => vi.restoreAllMocks());

/** A server that ends so many transactions because of others. */
function contended(times: number, code: string) {
  let tries = 0;
  const client = {
    pipeline: async (queries: readonly Query[]) => {
      tries += 1;
      const isEnded = tries <= times;
      return queries.map(({ text }) =>
        isEnded
          ? { status: 'rejected' as const, reason: Object.assign(new Error('could not serialize access'), { code }) }
          : { status: 'fulfilled' as const, value: { rows: [[1]], command: text.toUpperCase() } },
      );
    },
  };
  return { client: client as unknown as PostgresClient, tries: () => tries };
}

const insert: Query = { text: 'insert', values: [], isArray: true };

test.each(['40001', '40P01'])(
  'a transaction that the server ends with %s is tried twelve times, then it is an outage',
  async (code) => {
    // No waits.
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const eleven = contended(11, code);
    expect(await inTransaction(eleven.client, [insert])).toEqual([[[1]]]);
    expect(eleven.tries()).toBe(12);
    const twelve = contended(12, code);
    await expect(inTransaction(twelve.client, [insert])).rejects.toMatchObject({ name: 'DatabaseUnavailable' });
    expect(twelve.tries()).toBe(12);
  },
);

test('another error is not tried again', async () => {
  const broken = contended(1, '42P01');
  await expect(inTransaction(broken.client, [insert])).rejects.toMatchObject({ name: 'StatementMistake' });
  expect(broken.tries()).toBe(1);
});
