import type { Access } from './auth.ts';
import type { Backend } from './backend.ts';
import { isReadOnly, nameOf, refusal } from './commands.ts';
import { GatewayError } from './errors.ts';
import type { Command, Outcome, Shape } from './reply.ts';
import { ScriptTranslator } from './scripts.ts';

/** Puts clients' commands to the backend: checks what may be run, translates scripts, bounds what is in flight. */
export class Executor {
  readonly #backend: Backend;
  readonly #maxInFlight: number;
  readonly #scripts = new ScriptTranslator();
  #inFlight = 0;

  /** @param maxInFlight commands accepted and not yet answered, over all clients */
  constructor(backend: Backend, maxInFlight: number) {
    this.#backend = backend;
    this.#maxInFlight = maxInFlight;
  }

  /** Commands accepted and not yet answered. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Runs commands in order, each with an outcome of its own; a refused one fails only its own place. */
  async run(commands: readonly Command[], access: Access, shape: Shape): Promise<Outcome[]> {
    const outcomes = Array.from<Outcome>({ length: commands.length });
    const allowed: Command[] = [];
    const positions: number[] = [];
    for (let i = 0; i < commands.length; i++) {
      const command = commands[i]!;
      const name = nameOf(command);
      const denied = denial(name, command, access);
      if (denied) {
        outcomes[i] = denied;
      } else {
        allowed.push(this.#scripts.outgoing(name, command));
        positions.push(i);
      }
    }
    const replies = await this.#admit(allowed.length, () => this.#backend.run(allowed, shape));
    for (let i = 0; i < replies.length; i++) {
      const at = positions[i]!;
      outcomes[at] = this.#incoming(commands[at]!, replies[i]!);
    }
    return outcomes;
  }

  /** Runs commands as one transaction, or none of them: a single error says why. */
  async transaction(commands: readonly Command[], access: Access, shape: Shape): Promise<Outcome[] | Error> {
    if (commands.length === 0) return [];
    const allowed: Command[] = [];
    for (const command of commands) {
      const name = nameOf(command);
      const denied = denial(name, command, access);
      if (denied) return denied;
      allowed.push(this.#scripts.outgoing(name, command));
    }
    const replies = await this.#admit(allowed.length, () => this.#backend.transaction(allowed, shape));
    if (replies instanceof Error) return replies;
    return replies.map((reply, i) => this.#incoming(commands[i]!, reply));
  }

  #incoming(command: Command, outcome: Outcome): Outcome {
    return this.#scripts.incoming(command, outcome);
  }

  async #admit<T>(commands: number, work: () => Promise<T>): Promise<T> {
    // Something larger than the whole limit is let through alone: refusing it would refuse it for ever.
    if (this.#inFlight > 0 && this.#inFlight + commands > this.#maxInFlight) {
      throw new GatewayError(
        503,
        `ERR the gateway is busy: ${this.#inFlight} commands are in flight, the limit is ${this.#maxInFlight}`,
      );
    }
    this.#inFlight += commands;
    try {
      return await work();
    } finally {
      this.#inFlight -= commands;
    }
  }
}

function denial(name: string, command: Command, access: Access): GatewayError | undefined {
  const refused = refusal(name, command);
  if (refused !== undefined) return new GatewayError(400, refused);
  if (access === 'full' || isReadOnly(name)) return undefined;
  return new GatewayError(400, `NOPERM this token has no permissions to run the '${name.slice(0, 64)}' command`);
}
