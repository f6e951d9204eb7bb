import { keysOf } from '../../src/gateway/commands.ts';
import type { Command } from '../../src/gateway/reply.ts';
import { SLOT_COUNT, slotOf } from '../../src/gateway/slots.ts';
import type { Engine } from './engine.ts';
import { EngineError } from './resp.ts';
import type { EngineReply } from './resp.ts';

export const SHARDS = 3;

/** One command's outcome, as Upstash's protocol writes it. */
export type WireReply = { result: unknown } | { error: string };

/** Errors with which a whole server refuses commands. */
export type ServerState = 'loading' | 'readonly' | 'readonly-6' | 'oom' | 'misconf';

/** What a server may say of one command alone: its arguments are at fault, as the server sees it. */
export type Refusal = 'too-large' | 'key-too-large' | 'wrong-type';

const STATES: Record<ServerState, { text: string; writesOnly: boolean }> = {
  loading: { text: 'LOADING Redis is loading the dataset in memory', writesOnly: false },
  readonly: { text: "READONLY You can't write against a read only replica.", writesOnly: true },
  // Redis 6 wraps the error that a script got.
  'readonly-6': {
    text: "ERR Error running script (call to f_6b1bf486c81ceb7edf3c093f4a48582e38c0e791): @user_script:1: @user_script: 1: -READONLY You can't write against a read only replica.",
    writesOnly: true,
  },
  oom: { text: "OOM command not allowed when used memory > 'maxmemory'.", writesOnly: true },
  misconf: {
    text: 'MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.',
    writesOnly: true,
  },
};

const REFUSALS: Record<Refusal, string> = {
  'too-large': 'ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1258310 bytes.',
  'key-too-large': 'ERR max key size exceeded. Limit: 32768 bytes, Actual: 40000 bytes.',
  'wrong-type': 'WRONGTYPE Operation against a key holding the wrong kind of value',
};

const WRITES = new Set([
  'SET',
  'DEL',
  'UNLINK',
  'HSET',
  'HDEL',
  'PEXPIRE',
  'EXPIRE',
  'INCR',
  'EVAL',
  'EVALSHA',
  'MSET',
]);

interface Saved {
  key: Buffer;
  dump: Buffer;
  /** -1: it does not expire. */
  expiresAtMs: number;
}

/** The data of one Redis, on an engine that serves one run after the other, in three shards by hash slot. */
export class SimulatedRedis {
  readonly #engine: Engine;
  readonly #snapshots = new Map<string, Saved[]>();
  readonly deadShards = new Set<number>();
  state: ServerState | undefined;
  /** Refuses commands of this name whose first key contains the text. */
  refusal: { kind: Refusal; name: string; part: string } | undefined;

  constructor(engine: Engine) {
    this.#engine = engine;
    engine.reset();
  }

  /** Runs a pipeline as the gateway does: in order, each command for itself. */
  run(commands: readonly Command[]): WireReply[] {
    const replies = commands.map((command) => this.#refused(command) ?? topologyFor(command));
    const accepted = commands.filter((_, index) => replies[index] === undefined);
    const run = accepted.length === 0 ? [] : this.#engine.run(accepted);
    let next = 0;
    return replies.map((reply) => reply ?? wire(run[next++] ?? null));
  }

  #refused(command: Command): WireReply | undefined {
    const name = String(command[0]).toUpperCase();
    const keys = keysOf(name, command).map(String);
    if (keys.some((key) => this.deadShards.has(shardOf(key)))) {
      return { error: 'UNAVAILABLE Redis cannot be reached: the shard of this key is down' };
    }
    const state = this.state === undefined ? undefined : STATES[this.state];
    if (state !== undefined && (!state.writesOnly || WRITES.has(name))) {
      const wrapped = this.state === 'readonly-6' && !name.startsWith('EVAL');
      return { error: wrapped ? STATES.readonly.text : state.text };
    }
    const { refusal } = this;
    if (refusal !== undefined && refusal.name === name && keys[0]?.includes(refusal.part) === true) {
      return { error: REFUSALS[refusal.kind] };
    }
    return undefined;
  }

  /** Every key with its value as text. */
  texts(): { key: string; text: string }[] {
    const keys = this.#engine.run([['KEYS', '*']])[0] as Buffer[];
    const names = keys.map(String).sort();
    const types = this.#engine.run(names.map((name) => ['TYPE', name]));
    const values = this.#engine.run(
      names.map((name, index) => (types[index] === 'hash' ? ['HGETALL', name] : ['GET', name])),
    );
    return names.map((key, index) => ({ key, text: JSON.stringify(plain(values[index] ?? null)) }));
  }

  save(label: string): void {
    const keys = this.#engine.run([['KEYS', '*']])[0] as Buffer[];
    const copies = keys.map((key) => Buffer.from(key)).sort((a, b) => a.compare(b));
    const replies = this.#engine.run(
      copies.flatMap(
        (key) =>
          [
            ['DUMP', key],
            ['PEXPIRETIME', key],
          ] as const,
      ),
    );
    this.#snapshots.set(
      label,
      copies.flatMap((key, index) => {
        const dump = replies[2 * index];
        if (!Buffer.isBuffer(dump)) return [];
        return [{ key, dump: Buffer.from(dump), expiresAtMs: Number(replies[2 * index + 1]) }];
      }),
    );
  }

  /** Loses what it has, and its scripts. @param shard only of this one */
  flush(shard?: number): void {
    if (shard === undefined) {
      this.#engine.run([
        ['FLUSHALL', 'SYNC'],
        ['SCRIPT', 'FLUSH', 'SYNC'],
      ]);
      return;
    }
    const keys = (this.#engine.run([['KEYS', '*']])[0] as Buffer[]).filter((key) => shardOf(key) === shard);
    if (keys.length > 0) this.#engine.run([['DEL', ...keys]]);
  }

  /** Goes back to a snapshot, or to nothing where there is none of that name. */
  restore(label: string, shard?: number): void {
    this.flush(shard);
    const saved = (this.#snapshots.get(label) ?? []).filter(({ key }) => shard === undefined || shardOf(key) === shard);
    this.#engine.run(
      saved.map(({ key, dump, expiresAtMs }) =>
        expiresAtMs < 0 ? ['RESTORE', key, 0, dump] : ['RESTORE', key, expiresAtMs, dump, 'ABSTTL'],
      ),
    );
  }
}

/** What a cluster says to `CLUSTER SLOTS`; the engine behind it is a single server. */
function topologyFor([name, what]: Command): WireReply | undefined {
  if (String(name).toUpperCase() !== 'CLUSTER' || String(what).toUpperCase() !== 'SLOTS') return undefined;
  const first = (shard: number) => Math.ceil((shard * SLOT_COUNT) / SHARDS);
  const shards = Array.from({ length: SHARDS }, (_, shard) => shard);
  return {
    result: shards.map((shard) => [first(shard), first(shard + 1) - 1, ['127.0.0.1', 7_000 + shard, `node-${shard}`]]),
  };
}

export function shardOf(key: string | Buffer): number {
  return Math.floor((slotOf(key) * SHARDS) / SLOT_COUNT);
}

function wire(reply: EngineReply): WireReply {
  return reply instanceof EngineError ? { error: reply.text } : { result: plain(reply) };
}

function plain(reply: EngineReply): unknown {
  if (Buffer.isBuffer(reply)) return reply.toString('utf8');
  if (reply instanceof EngineError) return reply.text;
  return Array.isArray(reply) ? reply.map(plain) : reply;
}
