import { readFileSync } from 'node:fs';
import type { Endpoint } from './client.ts';
import { SettingsError } from './errors.ts';

/** A parsed REDIS_URL. */
export type Address =
  | { kind: 'direct'; endpoint: Endpoint }
  | {
      kind: 'sentinel';
      sentinels: Endpoint[];
      master: string;
      /** The login of the master. */ login: Login;
    }
  | { kind: 'cluster'; seeds: Endpoint[] };

/** How to sign in, without the address. */
export type Login = Omit<Endpoint, 'host' | 'port'>;

const FORM = /^(redis|rediss)(\+sentinel|\+cluster)?:\/\/(?:([^@/]*)@)?([^/?#]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/;

/**
 * Reads a Redis address:
 *
 * - `redis://[user:password@]host[:6379][/database]`, one server
 * - `redis+sentinel://[user:password@]sentinel[:26379][,sentinel…]/master-name[?database=0&sentinelPassword=…]`
 * - `redis+cluster://[user:password@]node[:6379][,node…]`
 *
 * `rediss` instead of `redis` in each: over TLS.
 *
 * @param tlsCaFile PEM file of the authority that signed the servers' certificates; absent: Node's own list
 * @throws {SettingsError} which never repeats the address, since it may hold a password
 */
export function parseAddress(text: string, tlsCaFile?: string): Address {
  const match = FORM.exec(text.trim());
  if (!match) {
    throw new SettingsError([
      'REDIS_URL is not an address such as redis://127.0.0.1:6379, redis+sentinel://host:26379/name or redis+cluster://host:6379',
    ]);
  }
  const [, scheme, mode, userInfo = '', hosts, path = '', query = ''] = match;
  const parameters = new URLSearchParams(query);
  const separator = userInfo.indexOf(':');
  const [username, password] =
    separator === -1 ? [userInfo, ''] : [userInfo.slice(0, separator), userInfo.slice(separator + 1)];
  const tls = scheme === 'rediss' ? { ca: tlsCaFile === undefined ? undefined : readCa(tlsCaFile) } : undefined;
  const login: Login = {
    username: decode(username) || undefined,
    password: decode(password) || undefined,
    tls,
  };
  const at = (defaultPort: number, rest: Login) =>
    hosts!.split(',').map((host): Endpoint => Object.assign(parseHost(host, defaultPort), rest));

  if (mode === '+cluster') {
    if (path !== '') throw new SettingsError(['REDIS_URL of a cluster cannot name a database']);
    return { kind: 'cluster', seeds: at(6379, login) };
  }
  if (mode === '+sentinel') {
    if (path === '') throw new SettingsError(['REDIS_URL of Sentinel must end with the master’s name: …/mymaster']);
    const sentinelPassword = parameters.get('sentinelPassword') ?? undefined;
    const sentinels = at(26_379, { tls, password: sentinelPassword });
    const database = parseDatabase(parameters.get('database') ?? '');
    return { kind: 'sentinel', sentinels, master: decode(path), login: { ...login, database } };
  }
  if (hosts!.includes(','))
    throw new SettingsError(['REDIS_URL names several hosts: use redis+sentinel:// or redis+cluster://']);
  return { kind: 'direct', endpoint: at(6379, { ...login, database: parseDatabase(path) })[0]! };
}

/** The same without user and password, for logs and /health. */
export function describeAddress(address: Address): string {
  const scheme = (tls: unknown) => (tls ? 'rediss' : 'redis');
  if (address.kind === 'direct') {
    const { tls, database } = address.endpoint;
    return `${scheme(tls)}://${place(address.endpoint)}${database ? `/${database}` : ''}`;
  }
  if (address.kind === 'sentinel') {
    return `${scheme(address.login.tls)}+sentinel://${address.sentinels.map(place).join(',')}/${address.master}`;
  }
  return `${scheme(address.seeds[0]?.tls)}+cluster://${address.seeds.map(place).join(',')}`;
}

/** `host:port`, with IPv6 in brackets. */
export function place({ host, port }: { host: string; port: number }): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function parseHost(text: string, defaultPort: number): { host: string; port: number } {
  const match = /^(?:\[([\da-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[3] ?? defaultPort);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port < 1 || port > 65_535) {
    throw new SettingsError(['REDIS_URL must name hosts as host, host:port or [IPv6]:port']);
  }
  return { host, port };
}

function parseDatabase(text: string): number | undefined {
  if (text === '') return undefined;
  if (!/^\d{1,4}$/.test(text)) throw new SettingsError(['REDIS_URL names a database that is not a number']);
  return Number(text) || undefined;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new SettingsError(['REDIS_URL has a % that does not begin an escape (%25 is a percent sign)']);
  }
}

function readCa(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new SettingsError([`REDIS_TLS_CA_FILE cannot be read (${(error as NodeJS.ErrnoException).code})`]);
  }
}
