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

const POLL_MS = 50;
const MAX_POLLS = 1_000;
/** For longer than any call to Redis may take. */
const UNCHANGED_POLLS = 80;

/**
 * Waits until nothing of the dropped requests is under way any more, or until what is left does not change: the runtime drops some
 * requests in the middle, and those never report their end.
 */
export async function untilIdle(underWay: () => Promise<number>): Promise<void> {
  let left = NaN;
  let unchanged = 0;
  for (let poll = 0; poll < MAX_POLLS && unchanged < UNCHANGED_POLLS; poll += 1) {
    const now = await underWay();
    if (now === 0) return;
    unchanged = now === left ? unchanged + 1 : 0;
    left = now;
    await setTimeout(POLL_MS);
  }
}
