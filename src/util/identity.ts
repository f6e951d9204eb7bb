import { networkOf, overlap, parseAddress, parseNetwork, textOf, withoutTunnel } from './ipAddress';
import type { Network } from './ipAddress';

/** The identity of all requests without a valid client address. */
export const UNKNOWN_ADDRESS = 'unknown';

/** Default length, in bits, of the IPv6 prefix that identifies a client. */
export const DEFAULT_PREFIX_BITS = 64;

/** An address as one client: an IPv6 network is one household, and a tunnelled IPv4 address is the IPv4 address. */
function clientOf(network: Network, prefixBits: number): Network {
  const address = withoutTunnel(network);
  return address.parts.length === 4 ? address : networkOf(address, prefixBits);
}

/**
 * The one spelling of the client that an address belongs to (RFC 5952).
 *
 * @param prefixBits length of the IPv6 prefix that identifies a client, 16 to 128
 */
export function foldAddress(address: string, prefixBits = DEFAULT_PREFIX_BITS): string {
  const parsed = parseAddress(address.trim());
  return parsed === undefined ? UNKNOWN_ADDRESS : textOf(clientOf(parsed, prefixBits));
}

/** The one spelling of a whole address (RFC 5952), for people to read. */
export function canonicalAddress(address: string): string {
  const parsed = parseAddress(address.trim());
  return parsed === undefined ? UNKNOWN_ADDRESS : textOf(withoutTunnel(parsed));
}

/** Prefixes of identities: of a client address, and of an account. */
const ADDRESS = /(?<=^|\s)address:(\S*)/;
const ACCOUNT = /(?<=^|\s)account:(.*)$/s;

/**
 * An identity in its canonical spelling: `address:2001:DB8:0:0::1` is `address:2001:db8::/64`, an account is its
 * e-mail address in lower case and NFC. Text that names no address stays as it is, and matches no identity.
 */
export function canonicalIdentity(identity: string, prefixBits = DEFAULT_PREFIX_BITS): string {
  return identity
    .replace(ADDRESS, (whole, text: string) => {
      const network = parseNetwork(text);
      return network === undefined ? whole : `address:${textOf(clientOf(network, prefixBits))}`;
    })
    .replace(ACCOUNT, (_, email: string) => `account:${email.trim().normalize('NFC').toLowerCase()}`);
}

/** Why an identity can match no client, such as text in place of an address. `undefined` for a valid one. */
export function identityFault(identity: string): string | undefined {
  const text = ADDRESS.exec(identity)?.[1];
  if (text === undefined || text === UNKNOWN_ADDRESS || parseNetwork(text) !== undefined) return undefined;
  return 'names no IP address and no network such as 2001:db8::/32';
}

/** Whether an identity is in a list that the application has configured. */
export type IdentityList = (identity: string, prefixBits: number) => boolean;

/**
 * A list of identities. Networks hold every client in them: `address:203.0.113.0/24`. An IPv6 address stands for its
 * client's whole network, because limiters count by network.
 *
 * @throws {RangeError} for an entry that can match no client
 */
export function identityList(entries: readonly string[] = []): IdentityList {
  if (entries.length === 0) return () => false;
  const networks: Network[] = [];
  const others: string[] = [];
  for (const entry of entries) {
    const fault = identityFault(entry);
    if (fault !== undefined) throw new RangeError(`${JSON.stringify(entry)} ${fault}`);
    const network = entry.startsWith('address:') ? parseNetwork(entry.slice('address:'.length)) : undefined;
    if (network === undefined) others.push(entry);
    else networks.push(withoutTunnel(network));
  }
  /** By prefix length, a setting; in practice there is only one. */
  const spelled = new Map<number, ReadonlySet<string>>();
  return (identity, prefixBits) => {
    let exact = spelled.get(prefixBits);
    if (exact === undefined) {
      exact = new Set(others.map((entry) => canonicalIdentity(entry, prefixBits)));
      spelled.set(prefixBits, exact);
    }
    const asked = canonicalIdentity(identity, prefixBits);
    if (exact.has(asked)) return true;
    const client = networks.length > 0 && asked.startsWith('address:') ? parseNetwork(asked.slice(8)) : undefined;
    return client !== undefined && networks.some((network) => overlap(network, client));
  };
}
