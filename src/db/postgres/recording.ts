import type { Query } from './client';

interface Recorded extends Query {
  resolve(rows: unknown[]): void;
}

/**
 * Collects the queries of statements instead of running them. They can then be sent as one transaction, and again after a
 * conflict. Each statement gets its rows once the transaction has committed.
 */
export function recordingOf() {
  const queries: Recorded[] = [];
  let recorded: () => void = () => undefined;

  return {
    queries: queries as readonly Query[],

    /** Drizzle calls this to run a query. */
    record: (text: string, values: unknown[], method: string) =>
      new Promise<{ rows: unknown[] }>((resolve) => {
        queries.push({ text, values, isArray: method === 'all', resolve: (rows) => resolve({ rows }) });
        recorded();
      }),

    /** @returns the outcome of each statement; it settles after {@link resolve} */
    async of(statements: readonly object[]): Promise<Promise<unknown>[]> {
      const outcomes: Promise<unknown>[] = [];
      for (const statement of statements) {
        const { promise, resolve } = Promise.withResolvers<void>();
        recorded = resolve;
        // A Drizzle statement runs when it is awaited.
        const outcome = Promise.resolve(statement as PromiseLike<unknown>);
        outcomes.push(outcome);
        // A statement that Drizzle refuses records no query; its error surfaces here.
        await Promise.race([promise, outcome]);
      }
      return outcomes;
    },

    resolve(results: readonly unknown[][]): void {
      for (const [index, query] of queries.entries()) query.resolve(results[index] ?? []);
    },
  };
}
