import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { freePort } from '../../../support/redisServers.ts';
import type { CaseResult } from '../../question.ts';
import { heapOf } from '../../support/inspector.ts';
import type { Target } from '../../support/load.ts';
import { loadCalls, loadHttp } from '../gateway/load.ts';
import { abandon, untilIdle } from './abandon.ts';
import { lineOf, measureRounds } from './rounds.ts';

const TOKEN = 'token-of-the-benchmark';
const CONNECTIONS = 32;

interface RunningGateway extends AsyncDisposable {
  url: string;
  /** `host:port` */
  inspector: string;
}

/** The gateway as it is run in production, with its inspector. */
async function startInspectedGateway(redisUrl: string | undefined): Promise<RunningGateway> {
  const main = fileURLToPath(new URL('../../../../src/gateway/main.ts', import.meta.url));
  const port = await freePort();
  const child = spawn(process.execPath, ['--inspect=127.0.0.1:0', main], {
    env: {
      PATH: process.env['PATH'],
      GATEWAY_TOKEN: TOKEN,
      GATEWAY_PORT: String(port),
      ...(redisUrl !== undefined && { REDIS_URL: redisUrl }),
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(child, 'exit');
  const stop = async () => {
    child.kill();
    await exited;
  };
  const inspector = new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      const [, address] = /Debugger listening on ws:\/\/([^/]+)/.exec(line) ?? [];
      if (address !== undefined) resolve(address);
    });
    child.once('exit', (code) => reject(new Error(`the gateway ended with ${code}`)));
  });
  const url = `http://127.0.0.1:${port}`;
  try {
    const address = await inspector;
    for (let attempt = 0; ; attempt += 1) {
      const response = await fetch(url).catch(() => undefined);
      await response?.text();
      if (response !== undefined) return { url, inspector: address, [Symbol.asyncDispose]: stop };
      if (attempt > 200) throw new Error('the gateway does not listen');
      await setTimeout(50);
    }
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What a request leaves behind in the gateway's process. */
export async function measureGateway(
  progress: (line: string) => void,
  { rounds, redisUrl, only }: { rounds: number; redisUrl?: string | undefined; only?: RegExp | undefined },
): Promise<{ cases: CaseResult[]; heapBytes: number }> {
  await using gateway = await startInspectedGateway(redisUrl);
  const port = Number(new URL(gateway.url).port);
  const loaded =
    (path: string, body: string, { token = TOKEN, refused = false } = {}) =>
    async (count: number): Promise<void> => {
      const { errors } = await loadHttp({ port, token, path, body }, CONNECTIONS, { requests: count });
      if (errors !== (refused ? count : 0)) throw new Error(`the gateway refused ${errors} of ${count} to ${path}`);
    };
  const long = JSON.stringify(['SET', 'memory:long', 'x'.repeat(1_000_000)]);
  const target = (path: string): Target => ({
    url: `${gateway.url}${path}`,
    headers: { Authorization: `Bearer ${TOKEN}` },
  });
  const dropped = (path: string, body: string, slow: boolean) => async (count: number) => {
    await abandon(target(path), {
      connections: CONNECTIONS,
      requests: count,
      waitMs: (request) => (slow ? 30 : request % 6),
      slow,
      vary: () => ({ body }),
    });
    // Redis executes the commands of a client that has gone: clients that drop faster than it does leave a backlog.
    await untilIdle(commandsUnderWay);
  };
  const commandsUnderWay = async () => {
    const { url, headers = {} } = target('/metrics');
    const text = await (await fetch(url, { headers })).text();
    return Number(/^gateway_commands_in_flight (\d+)/m.exec(text)?.[1]);
  };
  /** Each on a connection of its own: the gateway closes one that has shown a wrong token. */
  const wrongToken = async (count: number) => {
    const call = async () => {
      const headers = { Authorization: 'Bearer wrong' };
      const response = await fetch(`${gateway.url}/`, { method: 'POST', headers, body: '["PING"]' });
      await response.text();
      // Beyond some a second the gateway no longer says what was wrong.
      if (response.status !== 401 && response.status !== 429) throw new Error(`it answered ${response.status}`);
    };
    const { errors } = await loadCalls(call, CONNECTIONS, { requests: count });
    if (errors > 0) throw new Error(`${errors} of ${count} requests with a wrong token were not refused`);
  };
  await loadHttp({ port, token: TOKEN, path: '/', body: long }, 1, { requests: 1 });

  const kinds: { name: string; share?: number; run: (count: number) => Promise<unknown> }[] = [
    { name: 'pipeline', run: loaded('/pipeline', '[["SET","memory:k","v"],["GET","memory:k"],["INCR","memory:n"]]') },
    { name: 'transaction', run: loaded('/multi-exec', '[["SET","memory:k","v"],["GET","memory:k"]]') },
    { name: '400', run: loaded('/', '["NO-SUCH-COMMAND"]', { refused: true }) },
    { name: '401', share: 0.3, run: wrongToken },
    { name: 'dropped connection', run: dropped('/pipeline', '[["GET","memory:k"],["INCR","memory:n"]]', false) },
    { name: 'dropped reader of a long value', share: 0.2, run: dropped('/', '["GET","memory:long"]', false) },
    { name: 'slow reader of a long value', share: 0.2, run: dropped('/', '["GET","memory:long"]', true) },
    { name: 'dropped subscriber', share: 0.2, run: dropped('/subscribe/memory', '', false) },
  ];
  const cases: CaseResult[] = [];
  for (const { name: kind, share = 1, run } of kinds) {
    const name = `gateway: ${kind}`;
    if (only !== undefined && !only.test(name)) continue;
    const result = await measureRounds({ name, share, run }, rounds, () => heapOf(gateway.inspector));
    cases.push(result);
    progress(lineOf(result));
  }
  return { cases, heapBytes: await heapOf(gateway.inspector) };
}
