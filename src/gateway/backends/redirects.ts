import type { CommandCatalog } from '../catalog.ts';
import { isScript } from '../commands.ts';
import type { Connection } from '../connection.ts';
import { JSON_SHAPE, type Arg, type Command, type Outcome } from '../reply.ts';
import { slotOf } from '../slots.ts';
import type { ClusterNodes } from './clusterNodes.ts';

/** The wait before a command is tried again that needs two keys of a slot which is just being moved (TRYAGAIN). */
const TRYAGAIN_MS = 25;
const ASKING: Command = ['ASKING'];
const REDIRECTION = /^(?:MOVED|ASK|TRYAGAIN)(?: |$)/;

/** Where a command goes next. */
export interface Destination {
  target: Connection | undefined;
  /** Say ASKING first: the slot is being moved to the target, which does not own it yet. */
  asking: boolean;
}

/** A sent command or transaction, and its target. */
interface Sent {
  from: Connection;
  asking: boolean;
  /** The keys of the command, or of all commands of a transaction. */
  keys: () => Arg[] | Promise<Arg[]>;
}

/**
 * Follows the redirections of a Redis Cluster, and only those that a server made.
 *
 * An error is text, and a script can return any text: `return redis.error_reply('MOVED 1 attacker:6379')`. So the error
 * of a script, or of a command that the gateway does not know, is never followed. The server that sent it is asked about
 * the same keys with a command whose errors only a server can make (EXISTS); when the reply to that is a redirection,
 * that one is followed, and when it does not, the error is the script's own and goes to the client.
 */
export class Redirects {
  readonly #nodes: ClusterNodes;
  readonly #catalog: CommandCatalog;

  constructor(nodes: ClusterNodes, catalog: CommandCatalog) {
    this.#nodes = nodes;
    this.#catalog = catalog;
  }

  /** Whether an error looks like a redirection at all. */
  static isOne(error: Error): boolean {
    return REDIRECTION.test(error.message);
  }

  /**
   * The next target of a command whose reply is this error; `undefined`: there is none, and the client gets the error.
   * @param name the command's; absent: the error was made before EXEC, where no script has run yet
   */
  async next(error: Error, sent: Sent, name?: string): Promise<Destination | undefined> {
    const keys = await sent.keys();
    const [first] = keys;
    // Only a command with keys has a slot, and only a slot can be elsewhere.
    if (first === undefined) return undefined;
    const isServers = name === undefined || (this.#catalog.has(name) && !isScript(name));
    const redirection = isServers ? error : await this.#askServer(keys, sent);
    return redirection && this.#follow(redirection, slotOf(first), sent.from);
  }

  /** The server's own redirection for these keys; `undefined`: it serves them. */
  async #askServer(keys: Arg[], { from, asking }: Sent): Promise<Error | undefined> {
    const probe: Command = ['EXISTS', ...keys];
    const outcomes: Outcome[] = await from.run(asking ? [ASKING, probe] : [probe], JSON_SHAPE);
    const outcome = outcomes.at(-1);
    return outcome instanceof Error && Redirects.isOne(outcome) ? outcome : undefined;
  }

  async #follow(redirection: Error, ownSlot: number, from: Connection): Promise<Destination | undefined> {
    const [kind, slot, address] = redirection.message.split(' ');
    if (kind === 'TRYAGAIN') {
      await pause();
      return { target: from, asking: false };
    }
    if (!address || Number(slot) !== ownSlot) return undefined;
    const target = await this.#nodes.member(address, from);
    if (!target) {
      // The topology has just been read, and that node is not in it: the next try goes where the topology says.
      await pause();
      return { target: this.#nodes.ofSlot(ownSlot), asking: false };
    }
    if (kind === 'MOVED') this.#nodes.moved(ownSlot, target);
    await target.firstAttempt;
    return { target, asking: kind === 'ASK' };
  }
}

const pause = () => new Promise<void>((resolve) => setTimeout(resolve, TRYAGAIN_MS));
