import { createHash } from 'node:crypto';
import type { Arg, Command, Outcome } from './reply.ts';

/** Scripts whose SHAs are remembered. An older one costs its client one NOSCRIPT and a further EVAL. */
const REMEMBERED = 1000;

/**
 * Upstash lets a script begin with `#!lua flags=allow-key-locking`; other servers refuse that flag. The gateway takes
 * it off, and since a script's SHA is then another one, translates between the SHA that the client knows and the
 * server's.
 *
 * The map lives in this process. A gateway that has never seen the script passes the client's SHA on, Redis replies
 * NOSCRIPT, the client sends the script itself, and the gateway adds it to the map.
 */
export class ScriptTranslator {
  /** Client's SHA -> server's SHA, the least recently added first. */
  readonly #shas = new Map<string, string>();
  /** Flagged script -> what is sent instead of it. */
  readonly #scripts = new Map<string, { script: string; sha: string }>();

  /** The command as Redis is to get it. `name` is the command's name in capitals. */
  outgoing(name: string, command: Command): Command {
    switch (name) {
      case 'EVAL':
      case 'EVAL_RO':
        return this.#replaceScript(command, 1);
      case 'EVALSHA':
      case 'EVALSHA_RO':
        return this.#replaceShas(command, 1, 2);
      case 'SCRIPT': {
        const sub = String(command[1]).toUpperCase();
        if (sub === 'LOAD') return this.#replaceScript(command, 2);
        return sub === 'EXISTS' ? this.#replaceShas(command, 2, command.length) : command;
      }
      case 'FUNCTION':
        return this.#replaceScript(command, command.length - 1);
      default:
        return command;
    }
  }

  /** The reply as the client is to get it: SCRIPT LOAD names the SHA of the script that the client sent. */
  incoming(command: Command, outcome: Outcome): Outcome {
    if (this.#scripts.size === 0 || command.length !== 3 || outcome === null || outcome instanceof Error)
      return outcome;
    if (!isScriptLoad(command)) return outcome;
    const known = this.#scripts.get(String(command[2]));
    return known ? Buffer.from(known.sha) : outcome;
  }

  #replaceScript(command: Command, index: number): Command {
    const arg = command[index];
    if (arg === undefined || !mayBeFlagged(arg)) return command;
    const original = String(arg);
    let known = this.#scripts.get(original);
    if (!known) {
      const script = withoutKeyLocking(original);
      if (script === undefined) return command;
      known = { script, sha: sha1(original) };
      remember(this.#scripts, original, known);
      remember(this.#shas, known.sha, sha1(script));
    }
    return command.with(index, known.script) as [Arg, ...Arg[]];
  }

  #replaceShas(command: Command, start: number, end: number): Command {
    if (this.#shas.size === 0) return command;
    return command.map((arg, index) =>
      index >= start && index < end ? (this.#shas.get(String(arg).toLowerCase()) ?? arg) : arg,
    ) as [Arg, ...Arg[]];
  }
}

/**
 * The script without the flag `allow-key-locking`, or `undefined` when it does not have it. A shebang that says
 * nothing else is taken off, for servers older than Redis 7; its line stays, so that line numbers in errors hold.
 */
export function withoutKeyLocking(script: string): string | undefined {
  const end = script.indexOf('\n');
  const shebang = end === -1 ? script : script.slice(0, end);
  const [engine, ...options] = shebang.trim().split(/\s+/);
  const flags = options
    .find((option) => option.startsWith('flags='))
    ?.slice('flags='.length)
    .split(',');
  if (engine !== '#!lua' || !flags?.includes('allow-key-locking')) return undefined;
  const left = flags.filter((flag) => flag !== 'allow-key-locking' && flag !== '');
  const kept = options.filter((option) => !option.startsWith('flags='));
  if (left.length > 0) kept.push(`flags=${left.join(',')}`);
  return (kept.length > 0 ? `#!lua ${kept.join(' ')}` : '') + script.slice(shebang.length);
}

function mayBeFlagged(arg: Arg): boolean {
  return typeof arg === 'string' ? arg.startsWith('#!lua') : arg.subarray(0, 5).equals(SHEBANG);
}

function isScriptLoad([name, sub]: Command): boolean {
  return String(name).toUpperCase() === 'SCRIPT' && String(sub).toUpperCase() === 'LOAD';
}

const SHEBANG = Buffer.from('#!lua');

function sha1(script: string): string {
  return createHash('sha1').update(script).digest('hex');
}

function remember<V>(map: Map<string, V>, key: string, value: V): void {
  if (map.size >= REMEMBERED) map.delete(map.keys().next().value!);
  map.set(key, value);
}
