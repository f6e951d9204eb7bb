import type { RedisClient, RedisValue } from './client';
import { RedisUnavailable } from './errors';

/** Which shard of a cluster serves which slots. A shard is named by its first slot, so its name survives a failover. */
export interface Topology {
  shardCount: number;
  /** `undefined` if no shard serves the slot. */
  shardOf(slot: number): string | undefined;
}

/**
 * Asks whether Redis is a cluster (`CLUSTER SLOTS`). A server that refuses the command (a single one, Upstash, a proxy)
 * counts as a single one.
 *
 * @throws {RedisUnavailable}
 */
export async function askTopology(client: RedisClient): Promise<Topology | 'single'> {
  const [reply] = await client.execute([['CLUSTER', 'SLOTS']]);
  if (reply?.error instanceof RedisUnavailable) throw reply.error;
  return parseTopology(reply?.value);
}

/** The reply: `[first slot, last slot, [address, port, id, …] of the master, replicas …]` for each range of slots. */
function parseTopology(reply: RedisValue | undefined): Topology | 'single' {
  if (!Array.isArray(reply) || reply.length === 0) return 'single';
  const ranges: { first: number; last: number; master: string }[] = [];
  for (const range of reply) {
    const [first, last, master] = Array.isArray(range) ? range : [];
    if (typeof first !== 'number' || typeof last !== 'number' || !Array.isArray(master)) return 'single';
    ranges.push({ first, last, master: `${String(master[0])}:${String(master[1])}` });
  }
  const names = new Map<string, string>();
  for (const { first, master } of ranges.sort((a, b) => a.first - b.first)) {
    if (!names.has(master)) names.set(master, `shard of slot ${first}`);
  }
  return {
    shardCount: names.size,
    shardOf(slot) {
      const range = ranges.find(({ first, last }) => slot >= first && slot <= last);
      return range && names.get(range.master);
    },
  };
}
