import net from 'node:net';
import { once } from 'node:events';

/** One GET, over and over. */
export interface Target {
  url: string;
  headers?: Readonly<Record<string, string>>;
  /** Names a header that a good answer does not have. An answer that has it, or is not 200, ends the load. */
  forbiddenHeader?: string;
}

/** When a load ends: after so many requests, or after so long. */
export type Amount = { requests: number } | { durationMs: number };

export interface LoadResult {
  requests: number;
  elapsedMs: number;
  /** Of every request, in milliseconds, in no particular order. */
  latenciesMs: number[];
}

/**
 * A closed loop: each of `connections` keeps one request in flight. Written on bare sockets because it shares the
 * machine's cores with what it measures: an HTTP client costs several times as much.
 *
 * @throws when a connection breaks, or an answer is not what the target says
 */
export async function runLoad(target: Target, connections: number, amount: Amount): Promise<LoadResult> {
  const { hostname, port, pathname, host } = new URL(target.url);
  const lines = Object.entries({ Host: host, ...target.headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = Buffer.from(`GET ${pathname} HTTP/1.1\r\n${lines.join('')}\r\n`);
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
    await Promise.all(sockets.map((socket) => drive(socket, request, { more, latenciesMs, forbidden })));
    return { requests: latenciesMs.length, elapsedMs: performance.now() - startMs, latenciesMs };
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

interface Drive {
  more: () => boolean;
  latenciesMs: number[];
  forbidden: string | undefined;
}

/** Sends and receives on one connection until there is no more to do. */
function drive(socket: net.Socket, request: Buffer, { more, latenciesMs, forbidden }: Drive): Promise<void> {
  return new Promise((resolve, reject) => {
    let sentAtMs = 0;
    let received = '';
    const next = () => {
      if (!more()) return resolve();
      sentAtMs = performance.now();
      socket.write(request);
    };
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the Worker closed a connection')));
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      const headEnd = received.indexOf('\r\n\r\n');
      if (headEnd === -1) return;
      const head = received.slice(0, headEnd + 2).toLowerCase();
      const length = /\r\ncontent-length: *(\d+)\r\n/.exec(head)?.[1];
      if (length === undefined) return reject(new Error(`an answer has no length: ${firstLine(head)}`));
      if (received.length < headEnd + 4 + Number(length)) return;
      if (!head.startsWith('http/1.1 200 ')) return reject(new Error(`answered ${firstLine(head)}`));
      if (forbidden !== undefined && head.includes(forbidden)) {
        return reject(new Error(`an answer has the header${forbidden.trimStart()} (is the machine too busy?)`));
      }
      received = '';
      latenciesMs.push(performance.now() - sentAtMs);
      next();
    });
    next();
  });
}

function firstLine(head: string): string {
  return head.slice(0, head.indexOf('\r\n'));
}
