import { once } from 'node:events';
import net from 'node:net';
import type { AddressInfo, Socket } from 'node:net';

/** What has passed between Workers and PostgreSQL. */
export interface WireCounts {
  /** Times that a Worker waited for the server: for a connection, a transaction, or a statement outside of one. */
  trips: number;
  connections: number;
  /** Transactions, and statements outside of one. */
  batches: number;
  /** Statements, those that begin and end a transaction left out. */
  queries: number;
}

/**
 * A hop in front of PostgreSQL that counts what passes. It gives the client no response while a transaction has begun and its
 * COMMIT has not come: a client that sends all of a transaction before it reads is not held up, another one is after
 * {@link HELD_MS}, and each time that it waits counts as a trip.
 */
export async function startWireProxy(port: number): Promise<{ port: number; counts: () => WireCounts }> {
  const counts: WireCounts = { trips: 0, connections: 0, batches: 0, queries: 0 };
  const server = net.createServer({ noDelay: true }, (client) => connect(client, port, counts));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, counts: () => ({ ...counts }) };
}

const HELD_MS = 1_000;

function connect(client: Socket, port: number, counts: WireCounts): void {
  const server = net.connect({ host: '127.0.0.1', port, noDelay: true });
  let isOpen = false;
  let held: Buffer[] = [];
  let timer: NodeJS.Timeout | undefined;

  const release = () => {
    clearTimeout(timer);
    timer = undefined;
    for (const bytes of held) client.write(bytes);
    held = [];
  };
  const read = messagesOf(({ kind, text }) => {
    if (kind === 'startup') counts.connections += 1;
    if (kind !== 'statement') {
      counts.trips += 1;
      return;
    }
    if (/^begin\b/i.test(text)) {
      isOpen = true;
      counts.batches += 1;
      counts.trips += 1;
    } else if (/^(?:commit|rollback)\b/i.test(text)) {
      isOpen = false;
      release();
    } else {
      counts.queries += 1;
      if (isOpen) return;
      counts.batches += 1;
      counts.trips += 1;
    }
  });

  client.on('data', (bytes) => {
    read(bytes);
    server.write(bytes);
  });
  server.on('data', (bytes) => {
    if (!isOpen) return void client.write(bytes);
    held.push(bytes);
    timer ??= setTimeout(() => {
      counts.trips += 1;
      release();
    }, HELD_MS);
  });
  const close = () => {
    clearTimeout(timer);
    client.destroy();
    server.destroy();
  };
  client.on('end', () => server.end());
  server.on('end', () => {
    release();
    client.end();
  });
  for (const socket of [client, server]) socket.on('error', close).on('close', close);
}

interface Message {
  kind: 'encryption' | 'startup' | 'statement';
  text: string;
}

const SSL_REQUEST = 80_877_103;

/**
 * Reads what a client sends (https://www.postgresql.org/docs/current/protocol-message-formats.html).
 *
 * @returns takes the bytes, however they are cut
 */
function messagesOf(onMessage: (message: Message) => void): (bytes: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  let isStarted = false;
  return (bytes) => {
    rest = Buffer.concat([rest, bytes]);
    for (;;) {
      // The first messages have no type.
      const head = isStarted ? 1 : 0;
      if (rest.length < head + 4) return;
      const end = head + rest.readUInt32BE(head);
      if (rest.length < end) return;
      const body = rest.subarray(head + 4, end);
      const type = isStarted ? String.fromCodePoint(rest[0] ?? 0) : '';
      rest = rest.subarray(end);
      if (!isStarted) {
        isStarted = body.readUInt32BE(0) !== SSL_REQUEST;
        onMessage({ kind: isStarted ? 'startup' : 'encryption', text: '' });
      }
      // Query, and Parse, which names the statement first.
      if (type === 'Q') onMessage({ kind: 'statement', text: body.toString() });
      if (type === 'P') onMessage({ kind: 'statement', text: body.subarray(body.indexOf(0) + 1).toString() });
    }
  };
}
