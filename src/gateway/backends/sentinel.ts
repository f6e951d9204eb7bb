import { place } from '../address.ts';
import type { BackendOptions } from '../backend.ts';
import { describe, type Endpoint, newClient, type RedisClient } from '../client.ts';
import { BackendUnavailable } from '../errors.ts';
import { DirectBackend } from './direct.ts';

/** How often Sentinel is asked whether the master is still the same, and how long one Sentinel may take. */
const POLL_MS = 1000;
const REPLY_MS = 1000;

/** Which group to follow. */
export interface SentinelOptions {
  sentinels: readonly Endpoint[];
  /** The group's name in Sentinel's configuration. */
  master: string;
  /** How to sign in to the master itself. */
  login: Omit<Endpoint, 'host' | 'port'>;
}

/**
 * The master of a group that Redis Sentinel watches.
 *
 * Before every attempt to connect the Sentinels are asked for the master's address, and the server found there must
 * call itself a master: just after a failover a Sentinel may still name the old one. While connected they are asked
 * once a second, since an old master that is merely cut off from the others never closes our connection.
 */
export class SentinelBackend extends DirectBackend {
  readonly #poll: NodeJS.Timeout;

  constructor(options: SentinelOptions, description: string, backendOptions: BackendOptions = {}) {
    const directory = new SentinelDirectory(options);
    super({ resolve: () => directory.master(), verify: isMaster }, description, backendOptions);
    let asking = false;
    this.#poll = setInterval(() => {
      const connectedTo = this.connection.endpoint;
      if (asking || !this.connected || !connectedTo) return;
      asking = true;
      directory
        .master()
        .then(
          (master) => {
            if (place(master) !== place(connectedTo)) {
              this.connection.drop(new BackendUnavailable('Sentinel names another master'));
            }
          },
          () => {}, // No Sentinel replies: the known master may still be right, and is kept.
        )
        .finally(() => (asking = false));
    }, POLL_MS);
    this.#poll.unref();
  }

  override close(graceMs?: number): Promise<void> {
    clearInterval(this.#poll);
    return super.close(graceMs);
  }
}

/** Asks the Sentinels, one after the other, first the one that replied last. */
class SentinelDirectory {
  readonly #options: SentinelOptions;
  #order: Endpoint[];

  constructor(options: SentinelOptions) {
    this.#options = options;
    this.#order = [...options.sentinels];
  }

  async master(): Promise<Endpoint> {
    const reasons: string[] = [];
    for (const sentinel of this.#order) {
      try {
        const named = await ask(sentinel, this.#options.master);
        this.#order = [sentinel, ...this.#order.filter((other) => other !== sentinel)];
        return { ...named, ...this.#options.login };
      } catch (error) {
        reasons.push(`${place(sentinel)}: ${describe(error)}`);
      }
    }
    throw new BackendUnavailable(`no Sentinel names the master ${this.#options.master} (${reasons.join('; ')})`);
  }
}

async function ask(sentinel: Endpoint, master: string): Promise<{ host: string; port: number }> {
  const client = newClient(sentinel, { connectTimeoutMs: REPLY_MS });
  client.on('error', () => {}); // connect() and sendCommand() reject with the same error
  const timer = setTimeout(() => client.destroy(), REPLY_MS);
  try {
    await client.connect();
    const reply = await client.sendCommand<[string, string] | null>(['SENTINEL', 'get-master-addr-by-name', master]);
    if (!reply) throw new BackendUnavailable('does not know that name');
    return { host: reply[0], port: Number(reply[1]) };
  } finally {
    clearTimeout(timer);
    client.destroy();
  }
}

async function isMaster(client: RedisClient): Promise<void> {
  const [role] = await client.sendCommand<[string]>(['ROLE']);
  if (role !== 'master') throw new BackendUnavailable(`the server that Sentinel names is a ${role}`);
}
