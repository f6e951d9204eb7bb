import { GatewayError } from './errors.ts';
import type { Arg } from './reply.ts';

/** What a request asks for, by its path. */
export type Route =
  | { kind: 'command' }
  | { kind: 'pipeline' }
  | { kind: 'transaction' }
  | { kind: 'health' }
  | { kind: 'ready' }
  | { kind: 'metrics' }
  | { kind: 'monitor' }
  /** `/set/key/value?EX=100`: the request's body, if any, goes between `args` and `options`. */
  | { kind: 'path-command'; args: Arg[]; options: Arg[] }
  | { kind: 'subscribe'; pattern: boolean; name: string };

/** A request's route, and the token that its query may carry. */
export interface Target {
  route: Route;
  token: string | undefined;
}

const FIXED = new Map<string, { methods: string; route: Route }>([
  ['/', { methods: 'POST', route: { kind: 'command' } }],
  ['/pipeline', { methods: 'POST', route: { kind: 'pipeline' } }],
  ['/multi-exec', { methods: 'POST', route: { kind: 'transaction' } }],
  ['/monitor', { methods: 'GET, POST', route: { kind: 'monitor' } }],
  ['/health', { methods: 'GET, HEAD', route: { kind: 'health' } }],
  ['/ready', { methods: 'GET, HEAD', route: { kind: 'ready' } }],
  ['/metrics', { methods: 'GET, HEAD', route: { kind: 'metrics' } }],
]);
const PATH_METHODS = 'GET, HEAD, POST, PUT';

/** The path of a subscription, up to the name of what is subscribed to. */
const SUBSCRIPTION = /^\/(p?)subscribe(?:\/(.*))?$/is;
/**
 * A "%" that begins none of the escapes which URL parsers make by themselves in a path or a query
 * (https://url.spec.whatwg.org/#path-percent-encode-set).
 */
const LITERAL_PERCENT = /%(?!(?:[01][\da-f]|2[027]|3[ce]|5e|60|7[bdf]|[89a-f][\da-f]))/gi;

/**
 * The route of a request.
 * @param isSdk whether Upstash's SDK sent it, which puts the names of channels into the path as they are
 * @throws {GatewayError} 405 for a method that the path does not have, 404 for a path that is no command
 */
export function routeOf(method: string, url: string, isSdk = false): Target {
  const queryAt = url.indexOf('?');
  const path = queryAt === -1 ? url : url.slice(0, queryAt);
  const { options, token } = queryAt === -1 ? NO_QUERY : parseQuery(url.slice(queryAt + 1));

  const fixed = FIXED.get(path);
  if (fixed) {
    allow(method, fixed.methods);
    return { route: fixed.route, token };
  }
  const subscription = SUBSCRIPTION.exec(isSdk ? url : path);
  if (subscription) {
    allow(method, 'GET, POST');
    const [, p = '', rest = ''] = subscription;
    // All that follows is one name: clients do not escape a "/" in it.
    const name = isSdk ? decodeEscapedByParsers(rest) : String(decodeArg(rest));
    if (name === '') throw new GatewayError(400, `ERR wrong number of arguments for '${p}subscribe' command`);
    return { route: { kind: 'subscribe', pattern: p !== '', name }, token };
  }
  if (!path.startsWith('/')) throw new GatewayError(404, 'ERR no such path');
  const args = path.slice(1).split('/').map(decodeArg);
  const name = String(args[0]).toLowerCase();
  allow(method, PATH_METHODS);
  if (name === '') throw new GatewayError(404, 'ERR no such path');
  return { route: { kind: 'path-command', args, options }, token };
}

const NO_QUERY: { options: Arg[]; token: string | undefined } = { options: [], token: undefined };

/** `EX=100&NX` -> `EX`, `100`, `NX`. An empty value is a mere flag: many clients write `NX=` for it. */
function parseQuery(query: string): { options: Arg[]; token: string | undefined } {
  const options: Arg[] = [];
  let token: string | undefined;
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decodeQuery(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? '' : decodeQuery(pair.slice(equals + 1));
    if (name === '_token') {
      token = String(value);
    } else {
      options.push(name);
      if (value.length > 0) options.push(value);
    }
  }
  return { options, token };
}

/**
 * A name that the SDK has put into the URL as it is: only what the URL parser has escaped on the way is turned back. A "%"
 * that the application wrote stays one, as in `subscribe('50%41')`.
 */
function decodeEscapedByParsers(text: string): string {
  return String(decodeArg(text.replaceAll(LITERAL_PERCENT, '%25')));
}

const decodeQuery = (text: string): Arg => decodeArg(text.replaceAll('+', ' '));

/** Percent-decodes; what is not UTF-8 then stays bytes. */
function decodeArg(text: string): Arg {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    const latin1 = text.replaceAll(/%([\da-f]{2})/gi, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
    return Buffer.from(latin1, 'latin1');
  }
}

function allow(method: string, methods: string): void {
  if (!methods.split(', ').includes(method)) {
    throw new GatewayError(405, `ERR method ${method} is not allowed here, only ${methods}`);
  }
}
