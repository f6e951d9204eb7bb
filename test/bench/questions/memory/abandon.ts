import net from 'node:net';
import { setTimeout } from 'node:timers/promises';

import { requestOf } from '../../support/load.ts';
import type { Target, Variation } from '../../support/load.ts';

export interface AbandonOptions {
  connections: number;
  requests: number;
  /** How long the n-th request is waited for before its connection is reset, in milliseconds. */
  waitMs: (request: number) => number;
  /** Reads no more than the first bytes of a response, so that its sender has to wait. @default false */
  slow?: boolean;
  /** Of the n-th request. */
  vary?: (request: number) => Variation;
}

/** Sends each request on a connection of its own, and drops that before, or while, the response arrives. */
export async function abandon(
  target: Target,
  { connections, requests, waitMs, slow = false, vary = () => ({}) }: AbandonOptions,
): Promise<void> {
  const { hostname, port } = new URL(target.url);
  let sent = 0;
  const client = async () => {
    while (sent < requests) {
      const request = sent;
      sent += 1;
      const socket = net.connect({ host: hostname, port: Number(port), noDelay: true });
      // A server may close a connection first, or refuse one while it is restarted.
      socket.on('error', () => socket.destroy());
      if (slow) socket.once('data', () => socket.pause());
      else socket.resume();
      socket.write(requestOf(target, vary(request)));
      await setTimeout(waitMs(request));
      // No FIN: tens of thousands of closed connections would use up the ports of this machine.
      socket.resetAndDestroy();
    }
  };
  await Promise.all(Array.from({ length: connections }, client));
}
