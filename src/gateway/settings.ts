import { readFileSync } from 'node:fs';
import { parseAddress } from './address.ts';
import { SettingsError } from './errors.ts';
import type { GatewayOptions } from './options.ts';
import type { LogRequests } from './requestLog.ts';

/** The program's settings, as `startGateway` takes them. */
export type Settings = Omit<GatewayOptions, 'log' | 'token' | 'readOnlyToken'> & {
  token: string | readonly string[];
  readOnlyToken?: string | readonly string[];
};

type Env = Readonly<Record<string, string | undefined>>;

/** Shorter tokens can be guessed. 16 random characters of base64 have 96 bits. */
const SHORTEST_TOKEN = 16;

/** Settings that are whole numbers: variable, option, lowest, highest, default, what it is. */
export const NUMBERS = [
  ['GATEWAY_PORT', 'port', 0, 65_535, 8079, 'where to listen; 0 takes any free port'],
  ['GATEWAY_MAX_CONNECTIONS', 'maxConnections', 1, 1_000_000, 10_000, 'open connections; more are closed at once'],
  [
    'GATEWAY_MAX_UNPROVEN_CONNECTIONS',
    'maxUnprovenConnections',
    1,
    1_000_000,
    500,
    'of them, without a valid token so far; the oldest makes way',
  ],
  [
    'GATEWAY_MAX_WRONG_TOKENS_PER_SECOND',
    'maxWrongTokensPerSecond',
    1,
    1_000_000,
    20,
    'requests of one address without a valid token; more are 429',
  ],
  ['GATEWAY_MAX_REQUEST_BYTES', 'maxRequestBytes', 1024, 2 ** 29, 2 ** 25, 'largest request body; more is 413'],
  [
    'GATEWAY_MAX_BUFFERED_BYTES',
    'maxBufferedBytes',
    1024,
    2 ** 34,
    2 ** 28,
    'request bodies held at a time; more is 503',
  ],
  ['GATEWAY_MAX_IN_FLIGHT', 'maxInFlight', 1, 1_000_000, 100_000, 'commands in flight; more get 503'],
  ['GATEWAY_MAX_STREAMS', 'maxStreams', 0, 100_000, 1000, 'open subscriptions and monitors; more is 503'],
  ['GATEWAY_REPLY_TIMEOUT_MS', 'replyTimeoutMs', 50, 600_000, 5000, 'how long Redis may leave a command unanswered'],
  [
    'GATEWAY_SCRIPT_TIMEOUT_MS',
    'scriptTimeoutMs',
    0,
    600_000,
    5000,
    'scripts that hold Redis up for so long are killed; 0: never',
  ],
  ['GATEWAY_DRAIN_TIMEOUT_MS', 'drainTimeoutMs', 0, 600_000, 10_000, 'how long SIGTERM waits for requests in progress'],
] as const;

/**
 * Reads the settings from environment variables.
 * @throws {SettingsError} that names every wrong setting, not only the first
 */
export function readSettings(env: Env): Settings {
  const problems: string[] = [];
  const read = (name: string) => env[name]?.trim() || undefined;
  const { full, readOnly } = readTokens(env, problems);

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
  const oneOf = <T extends string>(name: string, values: readonly T[], fallback: T): T => {
    const text = read(name) ?? fallback;
    if (values.includes(text as T)) return text as T;
    problems.push(`${name} must be one of ${values.join(', ')}`);
    return fallback;
  };
  const tokenInUrl = oneOf('GATEWAY_TOKEN_IN_URL', ['on', 'off'], 'on') === 'on';
  const logRequests = oneOf<LogRequests>('GATEWAY_LOG_REQUESTS', ['none', 'failures', 'all'], 'failures');

  const tlsCaFile = read('REDIS_TLS_CA_FILE');
  const redisUrl = redisUrlOf(env, whole('REDIS_PORT', 1, 65_535) ?? 6379);
  const readOnlyRedisUrl = read('REDIS_READONLY_URL');
  if (readOnlyRedisUrl !== undefined && redisUrl === undefined) {
    problems.push('REDIS_READONLY_URL needs a REDIS_URL: the embedded engine has a user of its own for reading');
  }
  for (const [name, url] of [
    ['REDIS_URL', redisUrl],
    ['REDIS_READONLY_URL', readOnlyRedisUrl],
  ] as const) {
    if (url !== undefined) problems.push(...addressProblems(name, url, tlsCaFile));
  }
  if (problems.length > 0) throw new SettingsError(problems);
  return {
    token: full.length === 1 ? full[0]! : full,
    ...(readOnly.length > 0 && { readOnlyToken: readOnly.length === 1 ? readOnly[0]! : readOnly }),
    host: read('GATEWAY_HOST') ?? '127.0.0.1',
    port: 8079,
    ...numbers,
    ...(!tokenInUrl && { tokenInUrl }),
    ...(read('GATEWAY_LOG_REQUESTS') !== undefined && { logRequests }),
    ...(redisUrl !== undefined && { redisUrl }),
    ...(readOnlyRedisUrl !== undefined && { readOnlyRedisUrl }),
    ...(tlsCaFile !== undefined && { tlsCaFile }),
  };
}

/**
 * The tokens of the environment, or of the files that it names: one a line, so that two are valid while clients change
 * from one to the other.
 * @throws {SettingsError} when one cannot be used
 */
export function reloadTokens(env: Env): { full: string[]; readOnly: string[] } {
  const problems: string[] = [];
  const tokens = readTokens(env, problems);
  if (problems.length > 0) throw new SettingsError(problems);
  return tokens;
}

function readTokens(env: Env, problems: string[]): { full: string[]; readOnly: string[] } {
  const read = (names: readonly string[]): string[] => {
    const fileName = `${names[0]}_FILE`;
    const file = env[fileName]?.trim();
    const name = file ? fileName : (names.find((each) => env[each]?.trim()) ?? names[0]!);
    let tokens: string[];
    try {
      const text = file ? readFileSync(file, 'utf8') : (env[name] ?? '');
      tokens = file ? text.split('\n').map((line) => line.trim()) : [text.trim()];
    } catch (error) {
      problems.push(`${fileName} cannot be read (${(error as NodeJS.ErrnoException).code})`);
      return [];
    }
    tokens = tokens.filter((token) => token !== '');
    if (tokens.some((token) => token.length < SHORTEST_TOKEN)) {
      problems.push(`${name} must have at least ${SHORTEST_TOKEN} characters, such as \`openssl rand -hex 24\` makes`);
    }
    if (tokens.some((token) => !/^[\x21-\x7e]+$/.test(token))) {
      problems.push(`${name} must be of printable ASCII characters without spaces, as a header has room for`);
    }
    return tokens;
  };
  const full = read(['GATEWAY_TOKEN', 'UPSTASH_REDIS_REST_TOKEN']);
  const readOnly = read(['GATEWAY_READONLY_TOKEN']);
  if (full.length === 0 && problems.length === 0) {
    problems.push('GATEWAY_TOKEN (or UPSTASH_REDIS_REST_TOKEN, or GATEWAY_TOKEN_FILE) is missing');
  }
  if (readOnly.some((token) => full.includes(token))) {
    problems.push('GATEWAY_READONLY_TOKEN must differ from GATEWAY_TOKEN');
  }
  return { full, readOnly };
}

function redisUrlOf(env: Env, port: number): string | undefined {
  const read = (name: string) => env[name]?.trim() || undefined;
  const host = read('REDIS_HOST');
  if (read('REDIS_URL') !== undefined) return read('REDIS_URL');
  if (host === undefined && read('REDIS_PORT') === undefined) return undefined;
  const password = env['REDIS_PASSWORD'];
  const name = host ?? '127.0.0.1';
  const user = password ? `:${encodeURIComponent(password)}@` : '';
  return `redis://${user}${name.includes(':') ? `[${name}]` : name}:${port}`;
}

function addressProblems(name: string, url: string, tlsCaFile: string | undefined): string[] {
  try {
    parseAddress(url, tlsCaFile);
    return [];
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return error.problems.map((problem) => problem.replaceAll('REDIS_URL', name));
  }
}
