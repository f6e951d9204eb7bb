import { parseAddress } from './address.ts';
import { SettingsError } from './errors.ts';
import type { GatewayOptions } from './gateway.ts';

/** The program's settings, as {@link startGateway} takes them. */
export type Settings = Omit<GatewayOptions, 'log'>;

/** Settings that are whole numbers: variable, option, lowest, highest. */
const NUMBERS = [
  ['GATEWAY_PORT', 'port', 0, 65_535],
  ['GATEWAY_MAX_REQUEST_BYTES', 'maxRequestBytes', 1024, 512 * 1024 * 1024],
  ['GATEWAY_MAX_IN_FLIGHT', 'maxInFlight', 1, 1_000_000],
  ['GATEWAY_MAX_BUFFERED_BYTES', 'maxBufferedBytes', 1024, 16 * 1024 * 1024 * 1024],
  ['GATEWAY_MAX_STREAMS', 'maxStreams', 0, 100_000],
  ['GATEWAY_REPLY_TIMEOUT_MS', 'replyTimeoutMs', 50, 600_000],
  ['GATEWAY_DRAIN_TIMEOUT_MS', 'drainTimeoutMs', 0, 600_000],
] as const;

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

  const whole = (name: string, lowest: number, highest: number): number | undefined => {
    const text = read(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= lowest && value <= highest) return value;
    problems.push(`${name} must be a whole number from ${lowest} to ${highest}, not "${text}"`);
    return undefined;
  };
  const numbers: Partial<Record<(typeof NUMBERS)[number][1], number>> = {};
  for (const [name, option, lowest, highest] of NUMBERS) {
    const value = whole(name, lowest, highest);
    if (value !== undefined) numbers[option] = value;
  }
  const redisPort = whole('REDIS_PORT', 1, 65_535) ?? 6379;

  let redisUrl = read('REDIS_URL');
  const redisHost = read('REDIS_HOST');
  if (redisUrl === undefined && (redisHost !== undefined || read('REDIS_PORT') !== undefined)) {
    const password = env['REDIS_PASSWORD'];
    const name = redisHost ?? '127.0.0.1';
    const user = password ? `:${encodeURIComponent(password)}@` : '';
    redisUrl = `redis://${user}${name.includes(':') ? `[${name}]` : name}:${redisPort}`;
  }
  const tlsCaFile = read('REDIS_TLS_CA_FILE');
  if (redisUrl !== undefined) {
    try {
      parseAddress(redisUrl, tlsCaFile);
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
    port: 8079,
    ...numbers,
    ...(redisUrl !== undefined && { redisUrl }),
    ...(tlsCaFile !== undefined && { tlsCaFile }),
  };
}
