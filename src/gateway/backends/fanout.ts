import { GatewayError } from '../errors.ts';
import type { Arg, Command, Outcome, Reply } from '../reply.ts';
import { slotOf } from '../slots.ts';

/**
 * How a command that concerns more than one shard is run: the parts to send, and how their outcomes become one.
 * The parts are not atomic together.
 */
export interface Plan {
  /** The command for a shard, or for the shard that has a slot. */
  parts: { command: Command; to: { shard: number } | { slot: number } }[];
  /** Called with one outcome a part, in their order, when none of them is an error. */
  merge: (replies: Reply[]) => Outcome;
}

/**
 * The plan for a command that spans shards, or `undefined` where one shard answers it: by its key's slot, or, having no
 * key, whichever. Follows Redis's own request and response policies
 * (https://redis.io/docs/latest/develop/reference/command-tips/).
 *
 * @param name the command's name in capitals
 * @param shards how many shards there are, ordered by their lowest slot
 */
export function planFor(name: string, command: Command, shards: number): Plan | undefined {
  const sub = String(command[1] ?? '').toUpperCase();
  switch (name) {
    case 'DBSIZE':
      return everywhere(command, shards, sum);
    case 'KEYS':
      return everywhere(command, shards, (replies) => replies.flat());
    case 'FLUSHALL':
    case 'FLUSHDB':
      return everywhere(command, shards, first);
    case 'RANDOMKEY':
      return everywhere(command, shards, pick);
    case 'SCAN':
      return scan(command, shards);
    case 'SCRIPT':
      return everywhere(command, shards, sub === 'EXISTS' ? everyOf : first);
    case 'FUNCTION':
      return ['LIST', 'DUMP', 'STATS'].includes(sub) ? undefined : everywhere(command, shards, first);
    case 'PUBSUB':
      if (sub === 'CHANNELS') return everywhere(command, shards, (replies) => distinct(replies.flat()));
      if (sub === 'NUMPAT') return everywhere(command, shards, sum);
      return sub === 'NUMSUB' ? everywhere(command, shards, subscribers) : undefined;
    case 'DEL':
    case 'EXISTS':
    case 'TOUCH':
    case 'UNLINK':
      return bySlot(command, 1, sum);
    case 'MSET':
      return command.length % 2 === 1 ? bySlot(command, 2, first) : undefined;
    case 'MGET':
      return bySlot(command, 1);
    default:
      return undefined;
  }
}

function everywhere(command: Command, shards: number, merge: Plan['merge']): Plan {
  return { parts: Array.from({ length: shards }, (_, shard) => ({ command, to: { shard } })), merge };
}

/** Splits a command of many keys, each followed by `step - 1` further arguments; one part a slot. */
function bySlot(command: Command, step: number, merge?: Plan['merge']): Plan | undefined {
  const groups = new Map<number, { args: Arg[]; positions: number[] }>();
  for (let i = 1; i < command.length; i += step) {
    const slot = slotOf(command[i]!);
    const group = groups.get(slot) ?? { args: [], positions: [] };
    group.args.push(...command.slice(i, i + step));
    group.positions.push(i - 1);
    groups.set(slot, group);
  }
  if (groups.size < 2) return undefined;
  const parts = [...groups].map(([slot, { args }]) => ({ command: [command[0], ...args] as Command, to: { slot } }));
  if (merge) return { parts, merge };
  const positions = [...groups.values()].flatMap((group) => group.positions);
  return {
    parts,
    merge: (replies) => {
      const values: Reply[] = [];
      (replies as Reply[][]).flat().forEach((value, index) => (values[positions[index]!] = value));
      return values;
    },
  };
}

/** Room for as many shards in a SCAN cursor; a cluster has 1000 nodes at most. */
const SCAN_BASE = 1024n;

/**
 * SCAN reads one shard after the other. The client's cursor is the shard's own times 1024, plus the shard's number, so that
 * any gateway can continue it.
 */
function scan(command: Command, shards: number): Plan | undefined {
  const text = String(command[1] ?? '');
  if (!/^\d{1,25}$/.test(text)) return undefined; // one shard will say what is wrong with it
  const cursor = BigInt(text);
  const shard = Number(cursor % SCAN_BASE);
  if (shard >= shards) return { parts: [], merge: () => new GatewayError(400, 'ERR invalid cursor') };
  const own = String(cursor / SCAN_BASE);
  return {
    // `with` forgets that the first element is there.
    parts: [{ command: command.with(1, own) as unknown as Command, to: { shard } }],
    merge: ([reply]) => {
      const [next, keys] = reply as [Buffer, Reply];
      const nextOwn = BigInt(next.toString());
      if (nextOwn === 0n) return [Buffer.from(shard + 1 < shards ? String(shard + 1) : '0'), keys];
      return [Buffer.from(String(nextOwn * SCAN_BASE + BigInt(shard))), keys];
    },
  };
}

const first = (replies: Reply[]): Reply => replies[0]!;
const sum = (replies: Reply[]): Reply => String(replies.reduce((total, n) => total + BigInt(n as string), 0n));
/** A script exists when every shard has it. */
const everyOf = (replies: Reply[]): Reply =>
  (replies[0] as string[]).map((_, i) => (replies.every((reply) => (reply as string[])[i] === '1') ? '1' : '0'));
const pick = (replies: Reply[]): Reply => {
  const keys = replies.filter((reply) => reply !== null);
  return keys[Math.floor(Math.random() * keys.length)] ?? null;
};
const distinct = (names: Reply[]): Reply => [...new Set(names.map(String))].map((name) => Buffer.from(name));
/** `[channel, n, …]` of each shard, added up. */
const subscribers = (replies: Reply[]): Reply =>
  (replies[0] as Reply[]).map((value, i) =>
    i % 2 === 0 ? value : sum(replies.map((reply) => (reply as Reply[])[i]!)),
  );

/** The first error among outcomes. */
export function failureOf(outcomes: readonly Outcome[]): Error | undefined {
  return outcomes.find((outcome): outcome is Error => outcome instanceof Error);
}
