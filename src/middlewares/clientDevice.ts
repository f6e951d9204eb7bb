import type { Context } from 'hono';

import type { Device } from '../services/session.service';
import { foldAddress } from './clientAddress';

/**
 * Where a request comes from, as the account's owner will see it in the lists of devices and events.
 *
 * @param name what the client calls itself, in place of its User-Agent
 */
export function deviceOf(c: Context, name?: string): Device {
  const agent = (c.req.header('User-Agent') ?? '').replaceAll(/[^\x20-\x7e]/g, '').slice(0, 100);
  return { device: name ?? (agent || 'unknown'), address: addressOf(c) };
}

function addressOf(c: Context): string {
  const address = c.req.header('CF-Connecting-IP') ?? '';
  // The whole address, for its owner: a /64 would not tell their devices apart.
  return address.length <= 45 && address !== '' ? address : foldAddress(address);
}
