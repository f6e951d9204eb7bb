import { isIP } from 'node:net';

/** A network of addresses; a single one is the network of all its bits. */
export interface Network {
  /** Groups of an IPv6 address, eight of 16 bits; bytes of an IPv4 address, four. */
  readonly parts: readonly number[];
  readonly prefixBits: number;
}

/** Parses `203.0.113.7` and `2001:db8::1`; a zone (`fe80::1%eth0`) is dropped. `undefined` for anything else. */
export function parseAddress(text: string): Network | undefined {
  const bare = text.includes(':') ? text.replace(/%.*$/s, '') : text;
  // The longest is 45 characters; nothing longer is worth a regular expression.
  const version = bare.length <= 45 ? isIP(bare) : 0;
  if (version === 0) return undefined;
  const parts = version === 4 ? bare.split('.').map(Number) : groupsOf(bare);
  return { parts, prefixBits: version === 4 ? 32 : 128 };
}

/** An address for logs: its network, /24 of IPv4 and /48 of IPv6. `''` for text that is none. */
export function maskAddress(text: string): string {
  const found = parseAddress(text);
  if (found === undefined) return '';
  const isV4 = found.parts.length === 4;
  const kept = found.parts.slice(0, 3);
  return isV4 ? `${kept.join('.')}.0/24` : `${kept.map((part) => part.toString(16)).join(':')}::/48`;
}

/** An address, or a network in CIDR notation (`2001:db8::/32`, `203.0.113.0/24`); bits behind the prefix do not count. */
export function parseNetwork(text: string): Network | undefined {
  const [, address = '', bits] = /^([^/]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text) ?? [];
  const whole = parseAddress(address);
  if (whole === undefined || bits === undefined) return whole;
  return Number(bits) <= whole.prefixBits ? networkOf(whole, Number(bits)) : undefined;
}

/**
 * The IPv4 address that an IPv6 address stands for, in every standard form: mapped and compatible (RFC 4291, section
 * 2.5.5), translated (RFC 2765), NAT64 (RFC 6052 and RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380). Each of these
 * networks holds many clients, or many networks that one client may choose from.
 */
export function withoutTunnel(address: Network): Network {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = address.parts;
  if (address.prefixBits !== 128) return address;
  if (a === 0x2002) return ipv4(b, c);
  if (a === 0x2001 && b === 0) return ipv4(g ^ 0xffff, h ^ 0xffff);
  if (a === 0x64 && b === 0xff9b && (c === 1 || (c | d | e | f) === 0)) return ipv4(g, h);
  if ((a | b | c | d) !== 0) return address;
  // `::` and `::1` are addresses of their own.
  const compatible = (e | f) === 0 && !(g === 0 && h <= 1);
  const mapped = (e === 0 && f === 0xffff) || (e === 0xffff && f === 0);
  return compatible || mapped ? ipv4(g, h) : address;
}

function ipv4(high: number, low: number): Network {
  return { parts: [high >> 8, high & 255, low >> 8, low & 255], prefixBits: 32 };
}

/** The network of this size that an address or a smaller network is in. */
export function networkOf({ parts, prefixBits }: Network, bits: number): Network {
  if (bits >= prefixBits) return { parts, prefixBits };
  const width = parts.length === 4 ? 8 : 16;
  const kept = parts.map((part, index) => {
    const left = Math.min(width, Math.max(0, bits - width * index));
    return part & ~((1 << (width - left)) - 1);
  });
  return { parts: kept, prefixBits: bits };
}

/** Whether two networks are the same, or one is in the other. */
export function overlap(one: Network, other: Network): boolean {
  if (one.parts.length !== other.parts.length) return false;
  const bits = Math.min(one.prefixBits, other.prefixBits);
  const [left, right] = [networkOf(one, bits), networkOf(other, bits)];
  return left.parts.every((part, index) => part === right.parts[index]);
}

/** RFC 5952, and CIDR notation for a network of more than one address. */
export function textOf({ parts, prefixBits }: Network): string {
  const whole = parts.length === 4 ? 32 : 128;
  const address = parts.length === 4 ? parts.join('.') : compressed(parts);
  return prefixBits === whole ? address : `${address}/${prefixBits}`;
}

/** RFC 5952, section 4.2: the first longest run of zeros, of two groups or more, becomes `::`. */
function compressed(groups: readonly number[]): string {
  let [start, length] = [-1, 1];
  for (let index = 0; index < 8; index += 1) {
    let run = 0;
    while (index + run < 8 && groups[index + run] === 0) run += 1;
    if (run > length) [start, length] = [index, run];
  }
  const hex = groups.map((group) => group.toString(16));
  return start === -1 ? hex.join(':') : `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`;
}

/** The eight groups of an IPv6 address (RFC 4291, section 2.2); the last two may be written as an IPv4 address. */
function groupsOf(text: string): number[] {
  const hex = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...bytes: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = bytes.map(Number);
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const [head = '', tail] = hex.split('::');
  const parse = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  const left = parse(head);
  if (tail === undefined) return left;
  const right = parse(tail);
  return [...left, ...Array.from({ length: 8 - left.length - right.length }, () => 0), ...right];
}
