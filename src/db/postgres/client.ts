import { Client, types } from 'pg';

import { DatabaseUnavailable } from '../errors';
import { postgresError } from './errors';

/** A statement, as sent to the server. */
export interface Query {
  text: string;
  values: readonly unknown[];
  /** Rows as arrays, in the order of the columns. */
  isArray: boolean;
}

/**
 * The connection of one request: opened by its first query, closed at the end of the request. When it breaks, the waiting
 * queries fail, and the next query opens a new connection.
 */
export interface PostgresClient {
  /** @throws {DatabaseError} */
  query(query: Query): Promise<unknown[]>;
  /**
   * Sends all queries at once, without waiting for responses in between. The server runs them one after the other.
   *
   * @returns the outcome of each query
   */
  pipeline(queries: readonly Query[]): Promise<PromiseSettledResult<{ rows: unknown[]; command: string }>[]>;
  /** Call when a query timed out: later queries must not wait behind it. */
  abandon(): void;
  close(): void;
}

const INT8: number = types.builtins.INT8;
/** Reads `bigint` as a number: sequences, milliseconds and counts stay below 2^53. */
const PARSERS = {
  getTypeParser: ((id: number, format?: 'text') =>
    id === INT8 ? Number : types.getTypeParser(id, format)) as typeof types.getTypeParser,
};

export function createClient(connectionString: string): PostgresClient {
  /** The connection for the next query. */
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
    // Ignored: when the connection fails, its queries report the error.
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
      // Sent in one turn, so that no other query of the request comes between these.
      return Promise.allSettled(queries.map((query) => send(through, query)));
    },

    abandon,

    close() {
      isClosed = true;
      abandon();
    },
  };
}
