import type { Admission } from './admission.ts';
import type { Access } from './auth.ts';
import type { Backend } from './backend.ts';
import { isKill, isReadOnly, isScript, nameOf, refusal } from './commands.ts';
import { GatewayError } from './errors.ts';
import type { Command, Outcome, Shape } from './reply.ts';
import type { ScriptTranslator } from './scripts.ts';

export interface ExecutorOptions {
  backend: Backend;
  /** What the clients of this executor may do. */
  access: Access;
  /** Why these clients may not run scripts and functions; `undefined`: they may. */
  scriptsRefused: () => string | undefined;
  admission: Admission;
  scripts: ScriptTranslator;
}

/** Puts clients' commands to the backend: checks what may be run, translates scripts, bounds what is in flight. */
export class Executor {
  readonly #options: ExecutorOptions;

  constructor(options: ExecutorOptions) {
    this.#options = options;
  }

  /** Runs commands in order, each with an outcome of its own; a refused one fails only its own place. */
  async run(commands: readonly Command[], shape: Shape): Promise<Outcome[]> {
    const { admission, backend, scripts } = this.#options;
    const outcomes: Outcome[] = [];
    const allowed: Command[] = [];
    const positions: number[] = [];
    const kills: Promise<void>[] = [];
    for (let i = 0; i < commands.length; i++) {
      const command = commands[i]!;
      const name = nameOf(command);
      const denied = this.#denial(name, command) ?? (backend.catalog.has(name) ? undefined : await this.#unknown(name));
      if (denied) {
        outcomes[i] = denied;
      } else if (isKill(name, command)) {
        kills.push(this.#kill(name as 'SCRIPT' | 'FUNCTION').then((outcome) => void (outcomes[i] = outcome)));
      } else {
        allowed.push(scripts.outgoing(name, command));
        positions.push(i);
      }
    }
    const replies = await admission.admit(allowed.length, () => backend.run(allowed, shape));
    for (let i = 0; i < replies.length; i++) {
      const at = positions[i]!;
      outcomes[at] = scripts.incoming(commands[at]!, replies[i]!);
    }
    if (kills.length > 0) await Promise.all(kills);
    return outcomes;
  }

  /** Runs commands as one transaction, or none of them: a single error says why. */
  async transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error> {
    const { admission, backend, scripts } = this.#options;
    if (commands.length === 0) return [];
    const allowed: Command[] = [];
    for (const command of commands) {
      const name = nameOf(command);
      const denied = this.#denial(name, command) ?? (await this.#unknown(name));
      if (denied) return denied;
      if (isKill(name, command)) return new GatewayError(400, `ERR ${name} KILL cannot run in a transaction`);
      allowed.push(scripts.outgoing(name, command));
    }
    const replies = await admission.admit(allowed.length, () => backend.transaction(allowed, shape));
    if (replies instanceof Error) return replies;
    return replies.map((reply, i) => scripts.incoming(commands[i]!, reply));
  }

  #denial(name: string, command: Command): GatewayError | undefined {
    const refused = refusal(name, command);
    if (refused !== undefined) return new GatewayError(400, refused);
    if (isScript(name)) {
      const reason = this.#options.scriptsRefused();
      if (reason !== undefined) return new GatewayError(400, `NOPERM this token may not run scripts: ${reason}`);
    }
    if (this.#options.access === 'full' || isReadOnly(name)) return undefined;
    return new GatewayError(400, `NOPERM this token has no permissions to run the '${name.slice(0, 64)}' command`);
  }

  /** Whether a command that the gateway's own table does not have may run on a shared connection: Redis knows. */
  async #unknown(name: string): Promise<GatewayError | undefined> {
    const refused = await this.#options.backend.catalog.refusal(name);
    return refused === undefined ? undefined : new GatewayError(400, refused);
  }

  /** Sent apart from other commands, which wait for the very script that it is to end. */
  async #kill(kind: 'SCRIPT' | 'FUNCTION'): Promise<Outcome> {
    try {
      const { killed, error } = await this.#options.backend.kill(kind);
      return killed > 0 || !error ? Buffer.from('OK') : error;
    } catch (error) {
      return error as Error; // no server can be asked
    }
  }
}
