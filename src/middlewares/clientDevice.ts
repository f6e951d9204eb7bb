import type { Context } from 'hono';

import type { Device } from '../services/session.service';
import { canonicalAddress } from '../util/identity';

/**
 * Where a request comes from, as the account's owner will see it in the lists of devices and events.
 *
 * @param name what the client calls itself, in place of its User-Agent
 */
export function deviceOf(c: Context, name?: string): Device {
  const agent = (c.req.header('User-Agent') ?? '').replaceAll(/[^\x20-\x7e]/g, '').slice(0, 100);
  // The whole address, for its owner: a /64 would not tell their devices apart.
  return { device: name ?? (agent || 'unknown'), address: canonicalAddress(c.req.header('CF-Connecting-IP') ?? '') };
}
