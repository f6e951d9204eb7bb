import { Client, types } from 'pg';

import { DatabaseUnavailable } from '../errors';
import { postgresError } from './errors';

/** A statement as it goes to the server. */
export interface Query {
  text: string;
  values: readonly unknown[];
  /** Rows as arrays, in the order of the columns. */
  isArray: boolean;
}

/**
 * The connection of one request: opened with its first query, and over with the request. When it breaks, it fails the queries that
 * wait for it, and the next query opens another.
 */
export interface PostgresClient {
  /** @throws {DatabaseError} */
  query(query: Query): Promise<unknown[]>;
  /**
   * Sends all in one go, without waiting for responses in between, and runs them one after the other.
   *
   * @returns the outcome of each
   */
  pipeline(queries: readonly Query[]): Promise<PromiseSettledResult<{ rows: unknown[]; command: string }>[]>;
  /** A query waits in vain: later ones must not wait behind it. */
  abandon(): void;
  close(): void;
}

const INT8: number = types.builtins.INT8;
/** `bigint` as a number: sequences, milliseconds and counts stay below 2^53. */
const PARSERS = {
  getTypeParser: ((id: number, format?: 'text') =>
    id === INT8 ? Number : types.getTypeParser(id, format)) as typeof types.getTypeParser,
};

export function createClient(connectionString: string): PostgresClient {
  /** What the next query uses. */
  let current: Promise<Client> | undefined;
  let isClosed = false;

  function connect(): Promise<Client> {
    const client = new Client({ connectionString, pipeline: true });
    const connected = client.connect().then(() => client);
    const forget = () => {
      if (current === connected) current = undefined;
    };
    client.on('error', forget);
    client.on('end', forget);
    connected.catch(forget);
    return connected;
  }

  async function client(): Promise<Client> {
    if (isClosed) throw new DatabaseUnavailable('closed');
    return (current ??= connect());
  }

  function abandon(): void {
    const goodbye = async (connected: Promise<Client>) => (await connected).end();
    // Of a connection that has failed the queries have told.
    if (current !== undefined) void goodbye(current).catch(() => undefined);
    current = undefined;
  }

  const send = async (through: Client, { text, values, isArray }: Query) => {
    const result = await through.query({
      text,
      values: [...values],
      types: PARSERS,
      ...(isArray && { rowMode: 'array' as const }),
    });
    return { rows: result.rows as unknown[], command: result.command };
  };

  return {
    async query(query) {
      try {
        return (await send(await client(), query)).rows;
      } catch (error) {
        throw postgresError(error, [query.text]);
      }
    },

    async pipeline(queries) {
      let through: Client;
      try {
        through = await client();
      } catch (error) {
        throw postgresError(error, []);
      }
      // In one turn: other queries of the request come before or after.
      return Promise.allSettled(queries.map((query) => send(through, query)));
    },

    abandon,

    close() {
      isClosed = true;
      abandon();
    },
  };
}
