import { isRefusedByName, KEYS, type KeyRule } from './commands.ts';
import type { Arg, Command, Outcome, Reply } from './reply.ts';

/** A Redis server's description of one of its commands (`COMMAND INFO`). */
interface Facts {
  /** `'ask'`: only `COMMAND GETKEYS` knows their positions. */
  keys: 'ask' | { first: number; last: number; step: number };
  flags: ReadonlySet<string>;
}

/** Commands of a server that are remembered; modules bring some hundreds. */
const REMEMBERED = 2000;
/** Flags of commands that may not run on a connection that all requests share, and why. */
const UNSHAREABLE = new Map([
  ['admin', 'it administers the server'],
  ['blocking', 'it blocks, and would hold up every other request'],
  ['pubsub', 'it would change the connection, which all requests share'],
]);

/**
 * Knows commands: those of the gateway's own table, and for every other one what the server says about it. A command
 * that a newer server or a module brings is so routed by its real keys, and refused when it would block.
 */
export class CommandCatalog {
  readonly #ask: (command: Command) => Promise<Outcome>;
  readonly #table: ReadonlyMap<string, KeyRule>;
  readonly #facts = new Map<string, Facts>();

  /** @param ask puts a command without keys to any server; never rejects */
  constructor(ask: (command: Command) => Promise<Outcome>, table = KEYS) {
    this.#ask = ask;
    this.#table = table;
  }

  /** Whether the gateway's own table has the command. */
  has(name: string): boolean {
    return this.#table.has(name);
  }

  /** The keys of a command of the table. */
  keysOf(name: string, command: Command): Arg[] {
    return this.#table.get(name)!(command);
  }

  /** The keys of any command; asks the server about one that the table does not have. */
  async findKeys(name: string, command: Command): Promise<Arg[]> {
    if (this.has(name)) return this.keysOf(name, command);
    const facts = await this.#learn(name);
    // The server does not know it either: any server responds with that error.
    if (!facts) return command.slice(1, 2);
    if (facts.keys === 'ask') {
      const keys = await this.#ask(['COMMAND', 'GETKEYS', ...command]);
      return Array.isArray(keys) ? (keys as Buffer[]) : []; // an error: it has no keys, or is not complete
    }
    const { first, last, step } = facts.keys;
    if (first === 0) return [];
    const end = last < 0 ? command.length + last : last;
    return command.slice(first, end + 1).filter((_, index) => index % step === 0);
  }

  /** The error for a command that the table does not have, when the server says that it may not be shared. */
  async refusal(name: string): Promise<string | undefined> {
    if (this.has(name) || isRefusedByName(name)) return undefined;
    const facts = await this.#learn(name);
    for (const [flag, reason] of UNSHAREABLE) {
      if (facts?.flags.has(flag)) return `ERR Command is not available: '${name}', ${reason}`;
    }
    return undefined;
  }

  async #learn(name: string): Promise<Facts | undefined> {
    const known = this.#facts.get(name);
    // Nothing is remembered of a name that no server knows: clients could fill the memory with them.
    if (known || name.length > 64) return known;
    const outcome = await this.#ask(['COMMAND', 'INFO', name]);
    const facts = Array.isArray(outcome) ? read(outcome[0] ?? null) : undefined;
    if (facts && this.#facts.size < REMEMBERED) this.#facts.set(name, facts);
    return facts;
  }
}

/** Reads one entry of `COMMAND INFO` (https://redis.io/docs/latest/commands/command/). */
function read(entry: Reply): Facts | undefined {
  if (!Array.isArray(entry)) return undefined;
  const [, , flags, first, last, step, , , , subcommands] = entry;
  const words = Array.isArray(flags) ? flags.map(String) : [];
  // A container (XGROUP, …): its subcommands have keys of their own.
  const inner = Array.isArray(subcommands) ? subcommands : [];
  for (const sub of inner) if (Array.isArray(sub) && Array.isArray(sub[2])) words.push(...sub[2].map(String));
  const ask = inner.length > 0 || words.includes('movablekeys');
  return {
    keys: ask ? 'ask' : { first: Number(first), last: Number(last), step: Math.max(1, Number(step)) },
    flags: new Set(words),
  };
}
