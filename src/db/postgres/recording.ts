import type { Query } from './client';

interface Recorded extends Query {
  resolve(rows: unknown[]): void;
}

/**
 * Collects the queries of statements instead of running them, so that they can be sent as one transaction, and sent again
 * after a conflict; each statement gets its rows once the transaction is committed.
 */
export function recordingOf() {
  const queries: Recorded[] = [];
  let recorded: () => void = () => undefined;

  return {
    queries: queries as readonly Query[],

    /** What Drizzle calls to run a query. */
    record: (text: string, values: unknown[], method: string) =>
      new Promise<{ rows: unknown[] }>((resolve) => {
        queries.push({ text, values, isArray: method === 'all', resolve: (rows) => resolve({ rows }) });
        recorded();
      }),

    /** @returns the outcome of each statement, which comes after {@link resolve} */
    async of(statements: readonly object[]): Promise<Promise<unknown>[]> {
      const outcomes: Promise<unknown>[] = [];
      for (const statement of statements) {
        const { promise, resolve } = Promise.withResolvers<void>();
        recorded = resolve;
        // A Drizzle statement runs when it is awaited.
        const outcome = Promise.resolve(statement as PromiseLike<unknown>);
        outcomes.push(outcome);
        // One that Drizzle refuses records nothing, and fails here.
        await Promise.race([promise, outcome]);
      }
      return outcomes;
    },

    resolve(results: readonly unknown[][]): void {
      for (const [index, query] of queries.entries()) query.resolve(results[index] ?? []);
    },
  };
}
