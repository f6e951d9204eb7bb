import { Agent, createServer, request as send } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';

/** `away`: every connection is cut; `hanging`: requests are taken and get no response until it is `up` again. */
export type ProxyState = 'up' | 'away' | 'hanging';

/** An HTTP hop in front of the gateway that adds a delay to each round trip and counts what passes. */
export interface Proxy {
  readonly url: string;
  setDelay(delayMs: number): void;
  setState(state: ProxyState): void;
  /** Round trips and commands since it was started. */
  counts(): { trips: number; commands: number };
}

export async function startProxy(upstream: string): Promise<Proxy> {
  const { hostname, port } = new URL(upstream);
  const agent = new Agent({ keepAlive: true });
  let delayMs = 0;
  let state: ProxyState = 'up';
  const hanging = new Set<ServerResponse>();
  let trips = 0;
  let commands = 0;

  async function forward(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const body = await buffer(incoming);
    trips += 1;
    commands += commandsOf(incoming.url ?? '/', body);
    if (state === 'away') return void incoming.socket.destroy();
    if (state === 'hanging') {
      hanging.add(outgoing);
      outgoing.once('close', () => hanging.delete(outgoing));
      return;
    }
    if (delayMs > 0) await setTimeout(delayMs);
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const { method, url: path, headers } = incoming;
    send({ agent, hostname, port, method, path, headers }, resolve).on('error', reject).end(body);
    const reply = await promise;
    const replyBody = await buffer(reply);
    const { 'transfer-encoding': _, connection: __, 'keep-alive': ___, ...kept } = reply.headers;
    outgoing.writeHead(reply.statusCode ?? 502, { ...kept, 'content-length': replyBody.length });
    outgoing.end(replyBody);
  }

  const server = createServer({ noDelay: true, keepAliveTimeout: 65_000 }, (incoming, outgoing) => {
    forward(incoming, outgoing).catch(() => outgoing.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    setDelay(ms) {
      delayMs = ms;
    },
    setState(next) {
      state = next;
      if (next === 'up') for (const response of hanging) response.destroy();
    },
    counts: () => ({ trips, commands }),
  };
}

/** Commands in one request of Upstash's REST protocol. */
function commandsOf(path: string, body: Buffer): number {
  if (path !== '/pipeline' && path !== '/multi-exec') return 1;
  return (JSON.parse(body.toString()) as unknown[]).length;
}
