import type { Context } from 'hono';

import { configOf } from '../config/env';
import { foldAddress } from '../util/identity';

export { foldAddress } from '../util/identity';

/**
 * The client's address, as Cloudflare reports it; no header that a client can set is believed. An IPv6 network is one
 * household, hence one identity; an IPv4 address inside an IPv6 one is the IPv4 address; text that is no address counts
 * like a missing one, and all such requests share one identity.
 */
export function clientAddress(c: Context): string {
  return foldAddress(c.req.header('CF-Connecting-IP') ?? '', configOf(c.env as Env).ipv6PrefixBits);
}
