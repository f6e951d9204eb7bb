import { setTimeout as delay } from 'node:timers/promises';

import { startGateway } from '../gateway/gateway.ts';
import type { Log } from '../gateway/log.ts';
import { UserError } from './cli.ts';
import type { DevSettings } from './devSettings.ts';
import { authority, callable } from './ports.ts';

/** Redis as the Worker reaches it, over REST. */
export interface DevRedis {
  url: string;
  /** Whether its data is in the memory of this process. */
  embedded: boolean;
  /** For the screen. Asks it whether it responds. */
  describe(): Promise<string>;
  close(): Promise<void>;
}

/**
 * Starts the gateway, unless .dev.vars names a Redis over REST that is elsewhere.
 *
 * @throws {UserError} when it cannot listen
 */
export async function startRedis({ vars, gateway: options }: DevSettings, stop: AbortSignal): Promise<DevRedis> {
  if (options === undefined) {
    const url = vars.get('UPSTASH_REDIS_REST_URL')!;
    const describe = () => Promise.resolve(`${new URL(url).origin} (UPSTASH_REDIS_REST_URL in .dev.vars)`);
    return { url, embedded: false, describe, close: () => Promise.resolve() };
  }
  const gateway = await startGateway({ ...options, log: logGateway(stop) }).catch((error: unknown) => {
    throw error instanceof Error && 'code' in error ? new UserError(error.message) : error;
  });
  const url = `http://${authority(callable(options.host), gateway.port)}`;
  const embedded = gateway.backend.startsWith('embedded');
  const hint = embedded ? ', in memory (REDIS_URL=redis://… for a server of yours)' : '';
  return {
    url,
    embedded,
    async describe() {
      const state = (await respondsToPing(url, vars.get('UPSTASH_REDIS_REST_TOKEN')!)) ? '' : `\n            ${SILENT}`;
      return `${gateway.backend}${hint}, over REST at ${url}${state}`;
    },
    // A client that never ends its request must not keep the terminal.
    close: () => Promise.race([gateway.close(), delay(3_000)]),
  };
}

const SILENT = 'It does not respond yet. The app works without it, and uses it once it is there.';

async function respondsToPing(url: string, token: string): Promise<boolean> {
  const init = { method: 'POST', headers: { authorization: `Bearer ${token}` }, body: '["PING"]' };
  try {
    return (await fetch(url, { ...init, signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    // Refused or too late: it does not respond.
    return false;
  }
}

/** The rights of the Redis user on a developer's own server do not matter here. */
const ABOUT_PERMISSIONS = new Set(['redis_user_too_powerful', 'redis_user_unknown']);

/** The gateway's own log, without what every start and stop says, and without warnings that are for production. */
export function logGateway(stop: AbortSignal, write = (line: string): void => console.error(line)): Log {
  let lost = false;
  return (entry) => {
    if (entry.level !== 'error' && ABOUT_PERMISSIONS.has(entry.event)) return;
    lost ||= entry.level !== 'info';
    if (lost && !stop.aborted) write(JSON.stringify(entry));
  };
}
