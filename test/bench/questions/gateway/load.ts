import { connect, type Socket } from 'node:net';

/** Figures of one run. Latencies are in milliseconds. */
export interface Figures {
  requests: number;
  requestsPerSecond: number;
  p50Ms: number;
  p95Ms: number;
  p99Ms: number;
  errors: number;
}

/** How long to keep going, or how many requests to send. */
export type Until = { durationMs: number } | { requests: number };

/**
 * Sends the same POST over and over on `connections` keep-alive connections, each waiting for its response before the
 * next. It speaks just enough HTTP/1.1 for that: on a machine with two cores a full client would take more of them
 * than the servers it measures.
 */
export function loadHttp(
  target: { port: number; token: string; path: string; body: string },
  connections: number,
  until: Until,
): Promise<Figures> {
  const { port, token, path, body } = target;
  const request = Buffer.from(
    `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ${token}\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  const worker = (next: () => boolean, done: (ms: number, ok: boolean) => void) =>
    new Promise<void>((resolve, reject) => {
      const socket: Socket = connect({ port, host: '127.0.0.1', noDelay: true });
      let sentAt = 0;
      let received = '';
      const send = () => {
        if (!next()) return void socket.end(resolve);
        sentAt = performance.now();
        socket.write(request);
      };
      socket.once('connect', send).once('error', reject);
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString('latin1');
        if (!isComplete(received)) return;
        done(performance.now() - sentAt, received.startsWith('HTTP/1.1 200'));
        received = '';
        send();
      });
    });
  return measure(worker, connections, until);
}

/** Runs `connections` loops of `call`, each awaiting it before the next. */
export function loadCalls(
  call: (connection: number) => Promise<unknown>,
  connections: number,
  until: Until,
): Promise<Figures> {
  let index = 0;
  const worker = async (next: () => boolean, done: (ms: number, ok: boolean) => void) => {
    const connection = index++;
    while (next()) {
      const startedAt = performance.now();
      const ok = await call(connection).then(
        () => true,
        () => false,
      );
      done(performance.now() - startedAt, ok);
    }
  };
  return measure(worker, connections, until);
}

function isComplete(text: string): boolean {
  const end = text.indexOf('\r\n\r\n');
  if (end === -1) return false;
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end + 2))?.[1];
  return length === undefined ? text.endsWith('0\r\n\r\n') : text.length >= end + 4 + Number(length);
}

async function measure(
  worker: (next: () => boolean, done: (ms: number, ok: boolean) => void) => Promise<void>,
  connections: number,
  until: Until,
): Promise<Figures> {
  const latencies: number[] = [];
  let errors = 0;
  let started = 0;
  const startedAt = performance.now();
  const next = () =>
    'requests' in until ? started++ < until.requests : performance.now() - startedAt < until.durationMs;
  const done = (ms: number, ok: boolean) => {
    latencies.push(ms);
    if (!ok) errors++;
  };
  await Promise.all(Array.from({ length: connections }, () => worker(next, done)));
  const seconds = (performance.now() - startedAt) / 1000;
  latencies.sort((a, b) => a - b);
  const at = (share: number) => Number((latencies[Math.floor(latencies.length * share)] ?? 0).toFixed(3));
  return {
    requests: latencies.length,
    requestsPerSecond: Math.round(latencies.length / seconds),
    p50Ms: at(0.5),
    p95Ms: at(0.95),
    p99Ms: at(0.99),
    errors,
  };
}
