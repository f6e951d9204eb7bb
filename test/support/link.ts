import { once } from 'node:events';
import net from 'node:net';

/** A stretch of network between a client and a server, in the hands of a test. */
export interface Link extends AsyncDisposable {
  readonly port: number;
  /** Leads to another server from now on; connections to the one before are cut. */
  to(port: number): void;
  /** From now on nothing arrives at either end, and neither end gets an error: what is written is held back. */
  hold(): void;
}

/** Opens a port of 127.0.0.1 that leads to another one. */
export async function startLink(target: number): Promise<Link> {
  let port = target;
  const ends = new Set<net.Socket>();
  const server = net.createServer((near) => {
    const far = net.connect({ host: '127.0.0.1', port, noDelay: true });
    for (const [from, into] of [
      [near, far],
      [far, near],
    ] as const) {
      ends.add(from);
      from.on('data', (bytes) => into.write(bytes));
      from.on('close', () => {
        ends.delete(from);
        into.destroy();
      });
      // The other side sees the connection close.
      from.on('error', () => from.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    for (const end of ends) end.destroy();
  };
  return {
    port: (server.address() as net.AddressInfo).port,
    to(next) {
      port = next;
      cut();
    },
    hold() {
      for (const end of ends) end.pause();
    },
    async [Symbol.asyncDispose]() {
      server.close();
      cut();
      await once(server, 'close');
    },
  };
}
