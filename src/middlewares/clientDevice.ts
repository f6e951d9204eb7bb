import type { Context } from 'hono';

import type { Device } from '../services/session.service';
import { canonicalAddress } from '../util/identity';

/**
 * The device of a request, as the account's owner sees it in the lists of devices and events.
 *
 * @param name the client's own name for the device, in place of its User-Agent
 */
export function deviceOf(c: Context, name?: string): Device {
  const agent = (c.req.header('User-Agent') ?? '').replaceAll(/[^\x20-\x7e]/g, '').slice(0, 100);
  // The whole address, because only its owner sees it, and two devices may share a /64.
  return { device: name ?? (agent || 'unknown'), address: canonicalAddress(c.req.header('CF-Connecting-IP') ?? '') };
}
