import { place } from './address.ts';
import { describe, type Endpoint, newClient } from './client.ts';
import { BackendUnavailable } from './errors.ts';

/** One shard of a cluster: the slots of a master, and where its replicas are. */
export interface Shard {
  master: Endpoint;
  replicas: Endpoint[];
  /** Ranges of slots, both ends included. */
  ranges: [first: number, last: number][];
}

/** How long one node may take to reply with the topology, in milliseconds. */
const REPLY_MS = 1000;

/**
 * Asks the nodes, in turn, for the cluster's topology (`CLUSTER SLOTS`), until one replies.
 * @param login how to sign in to every node
 * @returns the shards that have slots, by their lowest slot
 * @throws {BackendUnavailable} when no node replies
 */
export async function readTopology(
  nodes: readonly Endpoint[],
  login: Omit<Endpoint, 'host' | 'port'>,
): Promise<Shard[]> {
  const reasons: string[] = [];
  for (const node of nodes) {
    try {
      const shards = toShards(await askNode<SlotRange[]>(node, ['CLUSTER', 'SLOTS']), node, login);
      if (shards.length > 0) return shards;
      reasons.push(`${place(node)}: knows of no slots`);
    } catch (error) {
      reasons.push(`${place(node)}: ${describe(error)}`);
    }
  }
  throw new BackendUnavailable(`no node returned the cluster's topology (${reasons.slice(0, 3).join('; ')})`);
}

/**
 * Every node that one of these nodes knows, as `host:port` (`CLUSTER NODES`). `CLUSTER SLOTS` leaves out those without
 * slots, and the first slot that moves to a new node is redirected to one of them.
 * @throws {BackendUnavailable} when no node replies
 */
export async function readMembers(nodes: readonly Endpoint[]): Promise<Set<string>> {
  const reasons: string[] = [];
  for (const node of nodes) {
    try {
      return toMembers(await askNode<string>(node, ['CLUSTER', 'NODES']), node);
    } catch (error) {
      reasons.push(`${place(node)}: ${describe(error)}`);
    }
  }
  throw new BackendUnavailable(`no node returned the cluster's members (${reasons.slice(0, 3).join('; ')})`);
}

const UNREACHABLE = new Set(['fail', 'handshake', 'noaddr']);

/** A line is `<id> <ip:port@busport[,hostname]> <flags> …`; a node that does not know its own address leaves the ip out. */
function toMembers(text: string, asked: Endpoint): Set<string> {
  const members = new Set<string>();
  for (const line of text.split('\n')) {
    const [, address = '', flags = ''] = line.split(' ');
    const match = /^(.*):(\d+)(?:@\d+)?(?:,([^,=]*))?/.exec(address);
    if (!match || flags.split(',').some((flag) => UNREACHABLE.has(flag))) continue;
    const port = Number(match[2]);
    members.add(place({ host: match[1] || asked.host, port }));
    if (match[3]) members.add(place({ host: match[3], port }));
  }
  return members;
}

type Node = [host: string | null, port: number, ...rest: unknown[]];
type SlotRange = [first: number, last: number, ...nodes: Node[]];

async function askNode<T>(node: Endpoint, command: string[]): Promise<T> {
  const client = newClient(node, { connectTimeoutMs: REPLY_MS });
  client.on('error', () => {}); // connect() and sendCommand() reject with the same error
  const timer = setTimeout(() => client.destroy(), REPLY_MS);
  try {
    await client.connect();
    return await client.sendCommand<T>(command);
  } finally {
    clearTimeout(timer);
    client.destroy();
  }
}

function toShards(ranges: SlotRange[], asked: Endpoint, login: Omit<Endpoint, 'host' | 'port'>): Shard[] {
  // A node that does not know its own address leaves it out, or says "?": it is the one that was asked.
  const endpoint = ([host, port]: Node): Endpoint => ({
    ...login,
    host: host === null || host === '' || host === '?' ? asked.host : host,
    port,
  });
  const shards = new Map<string, Shard>();
  for (const [first, last, masterNode, ...replicaNodes] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (!masterNode) continue;
    const master = endpoint(masterNode);
    const shard = shards.get(place(master)) ?? { master, replicas: replicaNodes.map(endpoint), ranges: [] };
    shard.ranges.push([first, last]);
    shards.set(place(master), shard);
  }
  return [...shards.values()];
}
