import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort, until } from '../../support/redisServers.ts';

/** A server in a process of its own, reached over HTTP. */
export interface HttpServer {
  port: number;
  stop(): Promise<void>;
}

/** Starts the gateway as it is run in production: `node src/gateway/main.ts`. */
export async function startGatewayProcess(redisUrl: string, token: string): Promise<HttpServer> {
  const main = fileURLToPath(new URL('../../../src/gateway/main.ts', import.meta.url));
  const port = await freePort();
  return start(main, port, token, { GATEWAY_TOKEN: token, GATEWAY_PORT: String(port), REDIS_URL: redisUrl });
}

/**
 * Starts @humanwhocodes/upstash-redis-server. It is no dependency of this project; it is taken from `PEERS_DIR`, a
 * directory in which it was installed with npm.
 * @returns `undefined` where it is not installed
 */
export async function startPeerProcess(redisUrl: string, token: string): Promise<HttpServer | undefined> {
  const main = peerMain();
  if (main === undefined) return undefined;
  const port = await freePort();
  return start(main, port, token, { URS_TOKEN: token, PORT: String(port), REDIS_URL: redisUrl });
}

function peerMain(): string | undefined {
  const name = '@humanwhocodes/upstash-redis-server';
  const directories = [process.env['PEERS_DIR'], fileURLToPath(new URL('../peers', import.meta.url))];
  for (const directory of directories) {
    const main = directory && join(directory, 'node_modules', name, 'dist', 'server.js');
    if (main && existsSync(main)) return main;
  }
  try {
    return join(createRequire(import.meta.url).resolve(name), '..', 'server.js');
  } catch {
    return undefined;
  }
}

async function start(main: string, port: number, token: string, env: Record<string, string>): Promise<HttpServer> {
  const child: ChildProcess = spawn(process.execPath, [main], {
    env: { PATH: process.env['PATH'], NODE_ENV: 'production', ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`${main} ended with ${child.exitCode}`);
    const ping = { method: 'POST', headers: { authorization: `Bearer ${token}` }, body: '["PING"]' };
    return fetch(`http://127.0.0.1:${port}/`, ping).then(
      ({ ok }) => ok,
      () => false,
    );
  }, `${main} answers`);
  return {
    port,
    async stop() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 5000);
      await gone;
      clearTimeout(late);
    },
  };
}
