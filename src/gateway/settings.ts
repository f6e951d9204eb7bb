import { SettingsError } from './errors.ts';
import type { Endpoint } from './connection.ts';

/** Reads `redis://[user:password@]host[:port][/database]`, or the same with `rediss://`. */
export function parseRedisUrl(text: string): Endpoint {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new SettingsError(['REDIS_URL is not a URL such as redis://127.0.0.1:6379']);
  }
  if (url.protocol !== 'redis:' && url.protocol !== 'rediss:') {
    throw new SettingsError([`REDIS_URL has the scheme ${url.protocol}// instead of redis:// or rediss://`]);
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const database = Number(url.pathname.slice(1) || 0);
  const problems: string[] = [];
  if (host === '') problems.push('REDIS_URL names no host');
  if (!Number.isInteger(database)) problems.push(`REDIS_URL has the database ${url.pathname}, which is no number`);
  if (problems.length > 0) throw new SettingsError(problems);
  return {
    host,
    port: Number(url.port || 6379),
    tls: url.protocol === 'rediss:' ? { servername: host, rejectUnauthorized: true } : undefined,
    username: decodeURIComponent(url.username) || undefined,
    password: decodeURIComponent(url.password) || undefined,
    database: database === 0 ? undefined : database,
  };
}

/** The same address without user and password, for logs and /health. */
export function describeEndpoint({ host, port, tls, database }: Endpoint): string {
  const name = host.includes(':') ? `[${host}]` : host;
  return `${tls ? 'rediss' : 'redis'}://${name}:${port}${database ? `/${database}` : ''}`;
}

/** The program's settings. */
export interface Settings {
  token: string;
  readOnlyToken?: string;
  host: string;
  port: number;
  redisUrl?: string;
}

/**
 * Reads the settings from environment variables.
 * @throws {SettingsError} that names every wrong setting, not only the first
 */
export function readSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  const problems: string[] = [];
  const read = (name: string) => env[name]?.trim() || undefined;

  const token = read('GATEWAY_TOKEN') ?? read('UPSTASH_REDIS_REST_TOKEN');
  if (token === undefined) problems.push('GATEWAY_TOKEN (or UPSTASH_REDIS_REST_TOKEN) is missing');
  const readOnlyToken = read('GATEWAY_READONLY_TOKEN');
  if (readOnlyToken !== undefined && readOnlyToken === token) {
    problems.push('GATEWAY_READONLY_TOKEN must differ from GATEWAY_TOKEN');
  }

  const portNumber = (name: string, fallback: number, lowest: number): number => {
    const text = read(name);
    if (text === undefined) return fallback;
    const port = Number(text);
    if (/^\d+$/.test(text) && port >= lowest && port <= 65_535) return port;
    problems.push(`${name} must be a port number from ${lowest} to 65535, not "${text}"`);
    return fallback;
  };
  const port = portNumber('GATEWAY_PORT', 8079, 0);
  const redisPort = portNumber('REDIS_PORT', 6379, 1);

  let redisUrl = read('REDIS_URL');
  const redisHost = read('REDIS_HOST');
  if (redisUrl === undefined && (redisHost !== undefined || read('REDIS_PORT') !== undefined)) {
    const password = env['REDIS_PASSWORD'];
    const name = redisHost ?? '127.0.0.1';
    const user = password ? `:${encodeURIComponent(password)}@` : '';
    redisUrl = `redis://${user}${name.includes(':') ? `[${name}]` : name}:${redisPort}`;
  }
  if (redisUrl !== undefined) {
    try {
      parseRedisUrl(redisUrl);
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      problems.push(...error.problems);
    }
  }
  if (problems.length > 0) throw new SettingsError(problems);
  return {
    token: token!,
    ...(readOnlyToken !== undefined && { readOnlyToken }),
    host: read('GATEWAY_HOST') ?? '127.0.0.1',
    port,
    ...(redisUrl !== undefined && { redisUrl }),
  };
}
