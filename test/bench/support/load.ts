import net from 'node:net';
import { once } from 'node:events';

/** A request, over and over: a GET, unless `next` says otherwise. */
export interface Target {
  url: string;
  headers?: Readonly<Record<string, string>>;
  /** What a good response has. Another one ends the load. @default 200 */
  status?: number;
  /** Names a header that a good response does not have. A response that has it ends the load. */
  forbiddenHeader?: string;
  /** What the next request of a connection has of its own, where they are not all alike. */
  next?: (connection: number) => Variation;
  /** Sees the body of every response, before the connection's next request is made. What it throws ends the load. */
  answered?: (body: string, connection: number) => void;
}

export interface Variation {
  /** In place of the URL's. */
  path?: string;
  headers?: Readonly<Record<string, string>>;
  /** JSON, which is POSTed. */
  body?: string;
}

/** When a load ends: after so many requests, or after so long. */
export type Amount = { requests: number } | { durationMs: number };

export interface LoadResult {
  requests: number;
  elapsedMs: number;
  /** Of every request, in milliseconds, in no particular order. */
  latenciesMs: number[];
}

/** Longer than any of the delays and deadlines here: a server that is silent for so long hangs. */
const SILENCE_MS = 15_000;

/**
 * A closed loop: each of `connections` keeps one request in flight. Written on bare sockets because it shares the
 * machine's cores with what it measures: an HTTP client costs several times as much.
 *
 * @throws when a connection breaks or hangs, or a response is not what the target says
 */
export async function runLoad(target: Target, connections: number, amount: Amount): Promise<LoadResult> {
  const { hostname, port } = new URL(target.url);
  const unvaried = requestOf(target, {});
  const { next, answered, status = 200 } = target;
  const requests = next === undefined ? () => unvaried : (connection: number) => requestOf(target, next(connection));
  const forbidden = target.forbiddenHeader === undefined ? undefined : `\r\n${target.forbiddenHeader.toLowerCase()}:`;

  const sockets = Array.from({ length: connections }, () =>
    net.connect({ host: hostname, port: Number(port), noDelay: true }),
  );
  try {
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const latenciesMs: number[] = [];
    const startMs = performance.now();
    const endMs = 'durationMs' in amount ? startMs + amount.durationMs : Infinity;
    let left = 'requests' in amount ? amount.requests : Infinity;
    const more = () => left-- > 0 && performance.now() < endMs;
    await Promise.all(
      sockets.map((socket, index) =>
        drive(socket, {
          more,
          request: () => requests(index),
          answered: (body) => answered?.(body, index),
          status,
          latenciesMs,
          forbidden,
        }),
      ),
    );
    return { requests: latenciesMs.length, elapsedMs: performance.now() - startMs, latenciesMs };
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

/** The bytes of one request. */
export function requestOf({ url, headers }: Target, { path, headers: own, body }: Variation): Buffer {
  const { pathname, host } = new URL(url);
  const content = body !== undefined && { 'Content-Type': 'application/json', 'Content-Length': body.length };
  const lines = Object.entries({ Host: host, ...headers, ...own, ...content });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return Buffer.from(
    `${body === undefined ? 'GET' : 'POST'} ${path ?? pathname} HTTP/1.1\r\n${head}\r\n${body ?? ''}`,
    'latin1',
  );
}

interface Drive {
  more: () => boolean;
  request: () => Buffer;
  answered: (body: string) => void;
  status: number;
  latenciesMs: number[];
  forbidden: string | undefined;
}

/** Sends and receives on one connection until there is no more to do. */
function drive(socket: net.Socket, { more, request, answered, status, latenciesMs, forbidden }: Drive): Promise<void> {
  return new Promise((resolve, reject) => {
    let sentAtMs = 0;
    let received = '';
    const next = () => {
      if (!more()) return resolve();
      const bytes = request();
      sentAtMs = performance.now();
      socket.write(bytes);
    };
    socket.on('error', reject);
    socket.setTimeout(SILENCE_MS, () => reject(new Error(`no response within ${SILENCE_MS / 1_000} s`)));
    socket.on('close', () => reject(new Error('the Worker closed a connection')));
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      const headEnd = received.indexOf('\r\n\r\n');
      if (headEnd === -1) return;
      const head = received.slice(0, headEnd + 2).toLowerCase();
      const length = status === 304 ? '0' : /\r\ncontent-length: *(\d+)\r\n/.exec(head)?.[1];
      if (length === undefined) return reject(new Error(`a response has no length: ${firstLine(head)}`));
      if (received.length < headEnd + 4 + Number(length)) return;
      if (!head.startsWith(`http/1.1 ${status} `)) return reject(new Error(refusalOf(head, received)));
      if (forbidden !== undefined && head.includes(forbidden)) {
        return reject(new Error(`a response has the header${forbidden.trimStart()} (is the machine too busy?)`));
      }
      latenciesMs.push(performance.now() - sentAtMs);
      try {
        answered(received.slice(headEnd + 4));
      } catch (error) {
        return reject(error);
      }
      received = '';
      next();
    });
    next();
  });
}

/** With the code of the problem, which says more than its status: an expired token and a revoked one are both a 401. */
function refusalOf(head: string, received: string): string {
  const [, code] = /"code":"(\w+)"/.exec(received) ?? [];
  return `answered ${firstLine(head)}${code === undefined ? '' : ` (${code})`}`;
}

function firstLine(head: string): string {
  return head.slice(0, head.indexOf('\r\n'));
}
