import type { Context } from 'hono';

import { configOf } from '../config/env';

/**
 * The client's address, as Cloudflare reports it; no header that a client can set is believed. An IPv6 network is one
 * household, hence one identity; an IPv4 address in IPv6 clothing is the IPv4 address.
 */
export function clientAddress(c: Context): string {
  return foldAddress(c.req.header('CF-Connecting-IP') ?? '', configOf(c.env as Env).ipv6PrefixBits);
}

/** @param prefixBits how much of an IPv6 address tells clients apart, 16 to 128 */
export function foldAddress(address: string, prefixBits = 64): string {
  const text = address.trim().toLowerCase();
  if (!text.includes(':')) return text === '' ? 'unknown' : text;
  const groups = expand(text.split('%')[0] ?? '');
  const [f = 0, g = 0, h = 0] = groups.slice(5);
  if (groups.slice(0, 5).every((group) => group === 0) && f === 0xffff) {
    return `${g >> 8}.${g & 255}.${h >> 8}.${h & 255}`;
  }
  const kept = groups.map((group, index) => {
    const bits = Math.min(16, Math.max(0, prefixBits - 16 * index));
    return (group & (0xffff << (16 - bits)) & 0xffff).toString(16);
  });
  return prefixBits === 128 ? kept.join(':') : `${kept.slice(0, Math.ceil(prefixBits / 16)).join(':')}::/${prefixBits}`;
}

/** The eight groups of an IPv6 address (RFC 4291, section 2.2); the last two may be written as an IPv4 address. */
function expand(text: string): number[] {
  const hex = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...bytes: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = bytes.map(Number);
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const [head = '', tail] = hex.split('::');
  const parse = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16) || 0));
  const left = parse(head);
  const right = tail === undefined ? [] : parse(tail);
  return [...left, ...Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => 0), ...right].slice(
    0,
    8,
  );
}
