import { ErrorReply } from 'redis';
import type { KillOutcome } from '../backend.ts';
import { describe, type Endpoint, newClient } from '../client.ts';
import { BackendUnavailable } from '../errors.ts';

/** Redis reads nothing until a script has run for its `busy-reply-threshold`, which is 5 seconds unless changed. */
const REPLY_MS = 7_000;

/**
 * Kills the script or the function that a server is running, on a connection of its own: the shared connection waits for
 * that script. It selects no database, since Redis refuses SELECT while a script runs.
 */
export async function killOn(endpoint: Endpoint, kind: 'SCRIPT' | 'FUNCTION'): Promise<KillOutcome> {
  const client = newClient({ ...endpoint, database: undefined });
  client.on('error', () => {}); // connect() and sendCommand() reject with the same error
  const timer = setTimeout(() => client.destroy(), REPLY_MS);
  try {
    await client.connect();
    await client.sendCommand([kind, 'KILL']);
    return { killed: 1 };
  } catch (error) {
    const refused = error instanceof ErrorReply; // NOTBUSY: nothing runs; UNKILLABLE: it has written already
    return { killed: 0, error: refused ? error : new BackendUnavailable(`Redis is not available: ${describe(error)}`) };
  } finally {
    clearTimeout(timer);
    client.destroy();
  }
}

/** The same on several servers; the error is the most telling one of those that had nothing killed. */
export async function killEverywhere(
  endpoints: readonly Endpoint[],
  kind: 'SCRIPT' | 'FUNCTION',
): Promise<KillOutcome> {
  const outcomes = await Promise.all(endpoints.map((endpoint) => killOn(endpoint, kind)));
  const errors = outcomes.flatMap((outcome) => (outcome.error ? [outcome.error] : []));
  const error = errors.find(({ message }) => !message.startsWith('NOTBUSY')) ?? errors[0];
  const killed = outcomes.reduce((sum, outcome) => sum + outcome.killed, 0);
  return { killed, ...(error && { error }) };
}
