import type { Context } from 'hono';

/**
 * The client's address, as Cloudflare reports it; no header that a client can set is believed. An IPv6 network of /64
 * is one household, hence one identity; an IPv4 address in IPv6 clothing is the IPv4 address.
 */
export function clientAddress(c: Context): string {
  return foldAddress(c.req.header('CF-Connecting-IP') ?? '');
}

export function foldAddress(address: string): string {
  const text = address.trim().toLowerCase();
  if (!text.includes(':')) return text === '' ? 'unknown' : text;
  const mapped = /^(?:0*:){0,5}:?(?:0*:)*ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (mapped?.[1] !== undefined) return mapped[1];
  const groups = expand(text.split('%')[0] ?? '');
  const [a, b, c, d, e, f, g, h] = groups;
  if ([a, b, c, d, e].every((group) => group === 0) && f === 0xffff && g !== undefined && h !== undefined) {
    return `${g >> 8}.${g & 255}.${h >> 8}.${h & 255}`;
  }
  return `${[a, b, c, d].map((group) => (group ?? 0).toString(16)).join(':')}::/64`;
}

/** The eight groups of an IPv6 address (RFC 4291, section 2.2). */
function expand(text: string): number[] {
  const [head = '', tail] = text.split('::');
  const parse = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16) || 0));
  const left = parse(head);
  const right = tail === undefined ? [] : parse(tail);
  return [...left, ...Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => 0), ...right];
}
