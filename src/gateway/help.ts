import { aclLines } from './acl.ts';
import { NUMBERS } from './settings.ts';

const TEXTS: [name: string, fallback: string, what: string][] = [
  ['GATEWAY_TOKEN', 'required', 'bearer token that allows everything (UPSTASH_REDIS_REST_TOKEN is taken too)'],
  ['GATEWAY_TOKEN_FILE', 'none', 'file with such tokens, one a line, in place of it; read again on SIGHUP'],
  ['GATEWAY_READONLY_TOKEN', 'none', 'bearer token for reading only'],
  ['GATEWAY_READONLY_TOKEN_FILE', 'none', 'file with such tokens, one a line, in place of it; read again on SIGHUP'],
  ['GATEWAY_TOKEN_IN_URL', 'on', 'whether ?_token=… is taken; off: only the Authorization header'],
  ['GATEWAY_HOST', '127.0.0.1', 'address to listen on'],
  ['GATEWAY_LOG_REQUESTS', 'failures', 'which requests are logged on stderr: none, failures (5xx), all'],
  ['REDIS_URL', 'embedded engine', 'redis://, redis+sentinel:// or redis+cluster://, each also as rediss'],
  ['REDIS_READONLY_URL', 'none', 'the same with a Redis user that may only read, for the read-only token'],
  ['REDIS_HOST, REDIS_PORT, REDIS_PASSWORD', 'none', 'one server, in place of REDIS_URL'],
  ['REDIS_TLS_CA_FILE', 'Node’s authorities', 'PEM file of the authority behind rediss:// certificates'],
];

/** What `--help` prints. */
export function help(): string {
  const numbers = NUMBERS.map(([name, , , , fallback, what]): [string, string, string] => [
    name,
    String(fallback),
    what,
  ]);
  const rows = [...TEXTS, ...numbers];
  const width = (column: 0 | 1) => Math.max(...rows.map((row) => row[column].length));
  const [full, readOnly] = aclLines();
  return `Serves Upstash's REST protocol over HTTP in front of a Redis server, a Sentinel group or a Redis Cluster.

Usage: GATEWAY_TOKEN=… [REDIS_URL=…] npm run gateway

Settings come from environment variables:

${rows.map(([name, fallback, what]) => `  ${name.padEnd(width(0))}  ${fallback.padEnd(width(1))}  ${what}`).join('\n')}

Signals: SIGTERM and SIGINT finish the requests in progress and end; SIGHUP reads the token files again.

Redis users to make for it, in redis-cli (Redis 7 or later):

  ${full}
  ${readOnly}
`;
}
