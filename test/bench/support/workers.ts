import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { builtinModules } from 'node:module';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import type { Plugin } from 'esbuild';
import { buildAssets } from '../../../src/scripts/buildAssets.ts';
import { POSTGRES_BUILD } from '../../../src/scripts/hyperdrive.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const bin = (name: string) => join(root, 'node_modules/.bin', name);

const COMPATIBILITY_DATE = '2026-10-20';

/** The app's Worker as wrangler deploys it. @param engine the database that it is for */
export async function bundleApp(engine: 'd1' | 'postgres' = 'd1'): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-'));
  try {
    await buildAssets();
    await promisify(execFile)(bin('wrangler'), ['deploy', '--dry-run', '--outdir', folder], {
      cwd: root,
      env: {
        ...process.env,
        ...(engine === 'postgres' && POSTGRES_BUILD),
        WRANGLER_SEND_METRICS: 'false',
        CI: '1',
      },
    });
    return await readFile(join(folder, 'index.js'), 'utf8');
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** `events` is `node:events` to a Worker. */
const nodeModules: Plugin = {
  name: 'node-modules',
  setup(build) {
    const filter = new RegExp(`^(?:${builtinModules.filter((name) => !name.startsWith('_')).join('|')})$`);
    build.onResolve({ filter }, ({ path }) => ({ path: `node:${path}`, external: true }));
  },
};

/** A Worker of the benchmark's own, bundled as wrangler does it. @param file under test/bench/peers */
export async function bundlePeer(file: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(root, 'test/bench/peers', file)],
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2024',
    conditions: ['workerd', 'worker', 'browser'],
    external: ['node:*', 'cloudflare:*'],
    plugins: [nodeModules],
    logLevel: 'error',
  });
  const [output] = outputFiles;
  if (output === undefined) throw new Error(`${file} was not built`);
  return output.text;
}

export interface WorkerOptions {
  name: string;
  script: string;
  bindings: Readonly<Record<string, string>>;
  /** Other Workers by the names of their bindings, which may also be sent scheduled events. */
  services?: Readonly<Record<string, string>>;
  /** The address of the PostgreSQL database behind its binding `HYPERDRIVE`, which is a plain connection here. */
  postgres?: string | undefined;
}

export interface StartOptions {
  /** SQL beside the app's own schema. */
  schema?: readonly string[];
  /** Lets {@link RunningWorkers.inspector} look into the isolates. @default false */
  inspector?: boolean;
}

/**
 * In memory where the system offers it: workerd waits for its disk on the thread that its Workers run on. D1 runs on other
 * machines, so in production no Worker waits in that way.
 */
const MEMORY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export interface RunningWorkers extends AsyncDisposable {
  /** Where each Worker listens, by its name. */
  urls: ReadonlyMap<string, string>;
  /** The database's own socket; see the peer `database/d1.ts`. */
  databaseUrl: string;
  /** `127.0.0.1:9229`, where DevTools connect; `undefined` unless it was asked for. */
  inspector: string | undefined;
  /** Of workerd. */
  pid: number;
}

/**
 * Starts Workers in one plain `workerd serve`, each on a socket of its own, with one database `DB` that has the app's
 * schema and what `schema` adds to it. Nothing stands between a socket and its Worker, nor between a Worker's `fetch` and the network: wrangler dev
 * and Miniflare put Workers of their own in both places, which costs a Worker that makes more round trips more.
 */
export async function startWorkers(
  workers: readonly WorkerOptions[],
  { schema = [], inspector = false }: StartOptions = {},
): Promise<RunningWorkers> {
  const folder = await mkdtemp(join(MEMORY, 'bench-'));
  try {
    await Promise.all(workers.map(({ name, script }) => writeFile(join(folder, `${name}.js`), script)));
    await mkdir(join(folder, 'd1'));
    await writeFile(join(folder, 'd1.js'), await bundlePeer('database/d1.ts'));
    await writeFile(join(folder, 'config.capnp'), configOf(workers, [...(await migrations()), ...schema]));
    return await serve(folder, workers.length + 1, inspector);
  } catch (error) {
    // Gone already where workerd did not start: that error is the one to show.
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function migrations(): Promise<string[]> {
  const folder = join(root, 'src/db/migrations');
  const files = (await readdir(folder)).filter((name) => name.endsWith('.sql')).toSorted();
  const texts = await Promise.all(files.map((file) => readFile(join(folder, file), 'utf8')));
  return texts.flatMap((text) => text.split('--> statement-breakpoint'));
}

/** The service, and the socket, of the database. */
const DATABASE = 'd1';

/** Cap'n Proto text escapes strings as JSON does, as far as ASCII goes. */
const quote = (text: string) => JSON.stringify(text);

function configOf(workers: readonly WorkerOptions[], schema: readonly string[]): string {
  const services = workers.map(
    ({ name, bindings, services: others = {}, postgres }) => `    (name = ${quote(name)}, worker = (
      compatibilityDate = "${COMPATIBILITY_DATE}",
      compatibilityFlags = ["service_binding_extra_handlers"],
      modules = [(name = "index.js", esModule = embed ${quote(`${name}.js`)})],
      bindings = [
        (name = "DB", wrapped = (
          moduleName = "cloudflare-internal:d1-api",
          innerBindings = [(name = "fetcher", service = "${DATABASE}")])),
${Object.entries(bindings)
  .map(([key, value]) => `        (name = ${quote(key)}, text = ${quote(value)}),`)
  .join('\n')}
${Object.entries(others)
  .map(([key, service]) => `        (name = ${quote(key)}, service = ${quote(service)}),`)
  .join('\n')}
${postgres === undefined ? '' : hyperdrive(name, new URL(postgres))}
      ])),
${postgres === undefined ? '' : `    (name = ${quote(`${name}-postgres`)}, external = (address = ${quote(new URL(postgres).host)}, tcp = ())),`}`,
  );
  const sockets = [...workers, { name: DATABASE }].map(
    ({ name }) => `    (name = ${quote(name)}, address = "127.0.0.1:0", http = (), service = ${quote(name)}),`,
  );
  return `using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "internet", network = (allow = ["public", "private"])),
    (name = "disk", disk = (path = "d1", writable = true)),
    (name = "${DATABASE}", worker = (
      compatibilityDate = "${COMPATIBILITY_DATE}",
      modules = [(name = "index.js", esModule = embed "d1.js")],
      durableObjectNamespaces = [(className = "Database", uniqueKey = "bench", enableSql = true)],
      durableObjectStorage = (localDisk = "disk"),
      bindings = [
        (name = "DATABASE", durableObjectNamespace = "Database"),
        (name = "MIGRATIONS", text = ${quote(JSON.stringify(schema))}),
      ])),
${services.join('\n')}
  ],
  sockets = [
${sockets.join('\n')}
  ],
);
`;
}

function hyperdrive(worker: string, { pathname, username, password }: URL): string {
  return `        (name = "HYPERDRIVE", hyperdrive = (designator = ${quote(`${worker}-postgres`)}, database = ${quote(pathname.slice(1))},
          user = ${quote(username)}, password = ${quote(password)}, scheme = "postgres")),`;
}

async function serve(folder: string, sockets: number, inspected: boolean): Promise<RunningWorkers> {
  const options = ['--control-fd=3', '--experimental', ...(inspected ? ['--inspector-addr=127.0.0.1:0'] : [])];
  const child = spawn(bin('workerd'), ['serve', ...options, 'config.capnp'], {
    cwd: folder,
    // Its stdout is the Workers' log.
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  });
  const exited = once(child, 'exit');
  let complaint = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-2_000);
  });
  // A benchmark that is interrupted leaves neither a workerd nor its folder behind.
  const abandon = () => {
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', abandon);
  const stop = async () => {
    process.off('exit', abandon);
    child.kill();
    await exited;
    await rm(folder, { recursive: true, force: true });
  };

  const urls = new Map<string, string>();
  let inspector: string | undefined;
  const isReady = () => urls.size === sockets && (!inspected || inspector !== undefined);
  const listening = (async () => {
    for await (const text of createInterface({ input: child.stdio[3] as Readable })) {
      const message = JSON.parse(text) as { event: string; socket: string; port: number };
      if (message.event === 'listen') urls.set(message.socket, `http://127.0.0.1:${message.port}`);
      if (message.event === 'listen-inspector') inspector = `127.0.0.1:${message.port}`;
      if (isReady()) return;
    }
  })();
  await Promise.race([listening, exited]);
  if (!isReady()) {
    await stop();
    throw new Error(`workerd did not start: ${complaint.trim()}`);
  }
  const databaseUrl = urls.get(DATABASE) ?? '';
  urls.delete(DATABASE);
  return { urls, databaseUrl, inspector, pid: child.pid ?? 0, [Symbol.asyncDispose]: stop };
}
