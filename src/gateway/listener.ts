import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { writeError } from './json.ts';

/** The HTTP server itself: connections, and how they end. */
export interface Listener {
  /** Where it listens. */
  readonly address: AddressInfo;
  /** Whether it is closing. Responses then have `Connection: close`, so that clients open another connection. */
  readonly draining: boolean;
  /** Connections now, those among them that have not shown a valid token yet, and how many were cut off so far. */
  readonly connections: { open: number; unproven: number; cutOff: number };
  /** Records that a valid token has come over this connection. */
  prove(socket: Socket): void;
  /** Rejects with one line of text and Node's error code. */
  listen(host: string, port: number): Promise<void>;
  /** Accepts nothing further and waits, `graceMs` at most, for the requests in progress. */
  close(graceMs: number): Promise<void>;
}

/** Node's codes for requests that it gives up, and what they are called in HTTP. */
const CLIENT_ERRORS = new Map([
  ['HPE_HEADER_OVERFLOW', '431 Request Header Fields Too Large'],
  ['ERR_HTTP_REQUEST_TIMEOUT', '408 Request Timeout'],
]);

export interface ListenerLimits {
  /** Connections; further ones are closed at once. */
  maxConnections: number;
  /** Connections that have not shown a valid token; the oldest makes way for the newest. */
  maxUnproven: number;
}

/** Makes a server for `handler`, with limits on how long a client may take over anything. */
export function createListener(handler: RequestListener, limits: ListenerLimits): Listener {
  const server = createServer(
    // Commands in the path may be long; a body that takes a minute to arrive is not coming.
    {
      keepAliveTimeout: 65_000,
      requestTimeout: 60_000,
      headersTimeout: 15_000,
      connectionsCheckingInterval: 5_000,
      noDelay: true,
      maxHeaderSize: 64 * 1024,
    },
    handler,
  );
  // A client that neither reads its response nor goes away is cut off.
  server.timeout = 120_000;
  // Input that is not HTTP, has too large a head, or comes too slowly never becomes a request. It still gets a response in JSON.
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
    const status = CLIENT_ERRORS.get(error.code ?? '') ?? '400 Bad Request';
    const body = writeError(`ERR the request is not acceptable HTTP: ${status.slice(4)}`);
    const head = `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\n`;
    socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  });
  const sockets = new Set<Socket>();
  /** The oldest first. */
  const unproven = new Set<Socket>();
  let cutOff = 0;
  server.maxConnections = limits.maxConnections;
  server.on('drop', () => cutOff++);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    unproven.add(socket);
    if (unproven.size > limits.maxUnproven) {
      // The oldest one has had time to show its token; clients that mean it do so at once.
      const [oldest] = unproven;
      unproven.delete(oldest!);
      oldest!.destroy();
      cutOff++;
    }
    socket.once('close', () => {
      sockets.delete(socket);
      unproven.delete(socket);
    });
  });
  let draining = false;

  return {
    get address() {
      return server.address() as AddressInfo;
    },
    get draining() {
      return draining;
    },
    get connections() {
      return { open: sockets.size, unproven: unproven.size, cutOff };
    },
    prove(socket) {
      unproven.delete(socket);
    },
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        server.once('error', (error: NodeJS.ErrnoException) => {
          const reason = error.code === 'EADDRINUSE' ? 'is in use' : `cannot be listened on (${error.code})`;
          const failure = new Error(`gateway: ${host}:${port} ${reason}`, { cause: error });
          reject(Object.assign(failure, { code: error.code }));
        });
        server.listen(port, host, resolve);
      }),
    async close(graceMs) {
      draining = true;
      const late = setTimeout(() => server.closeAllConnections(), graceMs);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const closeIdle = () => {
        server.closeIdleConnections();
        // Node counts a connection that has never sent a byte as busy. Clients open such connections for later requests.
        for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
      };
      closeIdle();
      // Connections become idle when their response is sent. The headers of a stream were sent earlier, without `Connection: close`.
      const idle = setInterval(closeIdle, 20);
      await closed;
      clearInterval(idle);
      clearTimeout(late);
    },
  };
}
