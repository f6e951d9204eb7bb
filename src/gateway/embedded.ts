import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { Worker } from 'node:worker_threads';
import { FULL_RULES, READ_ONLY_RULES } from './acl.ts';
import { type Endpoint, newClient } from './client.ts';
import { BEAT_MS, type EngineData, type EngineMessage } from './embeddedMessages.ts';

/** A Redis-compatible engine in a thread of this process, without persistence. */
export interface EmbeddedEngine {
  /** Where it listens (loopback, with a password of its own). */
  readonly endpoint: Endpoint;
  /** The same for a user that may only read. */
  readonly readOnlyEndpoint: Endpoint;
  /** For example `Valkey 9.1.1`. */
  readonly version: string;
  stop(): Promise<void>;
}

export interface EmbeddedOptions {
  /** A command or script that holds the engine up for so long has it replaced, in milliseconds; 0: never. @default 5000 */
  hangTimeoutMs?: number | undefined;
  /** Called with the reason when an empty engine has replaced this one. */
  onRestart?: ((reason: string) => void) | undefined;
}

/** How often the watchdog looks. A beat that is due more often than that has come in between. */
const LOOK_MS = 2 * BEAT_MS;
/** How long a new engine may take to listen, in milliseconds: a port that was in use a moment ago is tried again. */
const START_ATTEMPTS = 20;

/**
 * Starts Valkey, compiled to WebAssembly, on a free loopback port, in a worker thread.
 *
 * The engine cannot be interrupted: while a script runs it reads nothing, SCRIPT KILL included. So a watchdog in this
 * thread looks for its beats, and when they stop, ends the thread and starts an empty engine on the same port.
 *
 * @throws when the port cannot be listened on or the engine does not boot.
 */
export async function startEmbeddedEngine({
  hangTimeoutMs = 5000,
  onRestart,
}: EmbeddedOptions = {}): Promise<EmbeddedEngine> {
  const port = await freePort();
  const password = () => randomBytes(24).toString('base64url');
  const admin: Endpoint = { host: '127.0.0.1', port, username: 'default', password: password() };
  const full: Endpoint = { ...admin, username: 'gateway', password: password() };
  const reader: Endpoint = { ...admin, username: 'reader', password: password() };
  const secure = async () => {
    await command({ host: '127.0.0.1', port }, ['CONFIG', 'SET', 'requirepass', admin.password!]);
    // MONITOR shows nothing here that the token does not allow anyway.
    await command(admin, ['ACL', 'SETUSER', 'gateway', 'on', `>${full.password}`, ...FULL_RULES, '+monitor']);
    await command(admin, ['ACL', 'SETUSER', 'reader', 'on', `>${reader.password}`, ...READ_ONLY_RULES]);
  };

  let stopped = false;
  let current: { thread: Worker; beats: EngineData['beats'] } | undefined;
  let replacing: Promise<void> | undefined;
  const start = async () => {
    const beats = new Int32Array(new SharedArrayBuffer(4));
    const thread = await startThread({ port, beats }, replace);
    if (stopped) return void (await thread.terminate());
    await secure();
    current = { thread, beats };
  };
  const replace = (thread: Worker, reason: string): void => {
    if (stopped || replacing || current?.thread !== thread) return;
    current = undefined;
    replacing = (async () => {
      await thread.terminate();
      await start();
      if (!stopped) onRestart?.(reason);
    })().finally(() => (replacing = undefined));
    // If the engine cannot be restarted, commands get 503, as with an unreachable Redis.
    replacing.catch((error: Error) => onRestart?.(`${reason}; it could not be started again: ${error.message}`));
  };
  await start();
  const watchdog = watch(
    () => current,
    hangTimeoutMs,
    (thread) => replace(thread, `a command or script held it up for ${hangTimeoutMs} ms`),
  );

  return {
    endpoint: full,
    readOnlyEndpoint: reader,
    version: await versionOf(full),
    async stop() {
      stopped = true;
      clearInterval(watchdog);
      await replacing?.catch(() => {}); // reported through onRestart
      await current?.thread.terminate();
    },
  };
}

/**
 * Calls `onHang` when a thread has not shown a beat for `hangTimeoutMs`. Looks are counted, not time: after this process
 * itself was held up, or stopped, the engine gets as many looks as ever.
 */
function watch(
  current: () => { thread: Worker; beats: EngineData['beats'] } | undefined,
  hangTimeoutMs: number,
  onHang: (thread: Worker) => void,
): NodeJS.Timeout {
  let seen = -1;
  let looks = 0;
  const timer = setInterval(() => {
    const engine = current();
    const beats = engine && Atomics.load(engine.beats, 0);
    if (!engine || beats !== seen) {
      seen = beats ?? -1;
      looks = 0;
    } else if (++looks * LOOK_MS >= hangTimeoutMs && hangTimeoutMs > 0) {
      looks = 0;
      onHang(engine.thread);
    }
  }, LOOK_MS);
  return timer.unref();
}

/** Resolves once the thread's engine listens. */
async function startThread(data: EngineData, onEnd: (thread: Worker, reason: string) => void): Promise<Worker> {
  for (let attempt = 1; ; attempt++) {
    // A flag that this process was started with (an inspector, a loader) is none of the engine's.
    const thread = new Worker(new URL('embeddedWorker.ts', import.meta.url), { workerData: data, execArgv: [] });
    thread.unref();
    try {
      await new Promise<void>((resolve, reject) => {
        thread.once('error', reject).once('exit', () => reject(new Error('the embedded engine did not start')));
        thread.on('message', (message: EngineMessage) => {
          if ('ready' in message) resolve();
          else onEnd(thread, `it failed: ${message.crashed}`);
        });
        thread.ref();
      });
    } catch (error) {
      await thread.terminate();
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || attempt === START_ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
      continue;
    }
    thread.unref();
    thread.on('error', (error: Error) => onEnd(thread, `it failed: ${error.message}`));
    thread.on('exit', () => onEnd(thread, 'its thread has ended'));
    return thread;
  }
}

async function command(endpoint: Endpoint, args: string[]): Promise<string> {
  const client = newClient(endpoint);
  client.on('error', () => {}); // connect() and sendCommand() reject with the same error
  await client.connect();
  try {
    return await client.sendCommand<string>(args);
  } finally {
    client.destroy();
  }
}

async function versionOf(endpoint: Endpoint): Promise<string> {
  const info = await command(endpoint, ['INFO', 'server']);
  return `Valkey ${/valkey_version:([\d.]+)/.exec(info)?.[1] ?? '(unknown version)'}`;
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
