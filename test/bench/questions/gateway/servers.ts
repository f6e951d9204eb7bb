import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { freePort, until } from '../../../support/redisServers.ts';

/** A server in a process of its own, reached over HTTP. */
export interface HttpServer {
  port: number;
  stop(): Promise<void>;
}

/** Starts the gateway as it is run in production: `node src/gateway/main.ts`. */
export async function startGatewayProcess(redisUrl: string, token: string): Promise<HttpServer> {
  const main = fileURLToPath(new URL('../../../../src/gateway/main.ts', import.meta.url));
  const port = await freePort();
  return start(main, port, token, { GATEWAY_TOKEN: token, GATEWAY_PORT: String(port), REDIS_URL: redisUrl });
}

/** Starts @humanwhocodes/upstash-redis-server as its own command does. */
export async function startPeerProcess(redisUrl: string, token: string): Promise<HttpServer> {
  const main = fileURLToPath(
    new URL('../../../../node_modules/@humanwhocodes/upstash-redis-server/dist/server.js', import.meta.url),
  );
  const port = await freePort();
  return start(main, port, token, { URS_TOKEN: token, PORT: String(port), REDIS_URL: redisUrl });
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
  }, `${main} responds`);
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
