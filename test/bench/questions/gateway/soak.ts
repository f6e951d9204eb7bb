import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { startRedis } from '../../../support/redisServers.ts';
import { startGatewayProcess } from './servers.ts';

/*
 * Does the gateway's memory stay flat? `node test/bench/questions/gateway/soak.ts [minutes]` puts a mixed load on one
 * gateway in front of one redis-server, all on loopback: pipelines, values of 10 MB, clients that do not read what they
 * asked for, subscribers that do not read, and connections that break half way. Prints its resident memory as it goes.
 */
const TOKEN = 'token-of-the-benchmark';
const LARGE = 10 * 1024 * 1024;
const minutes = Number(process.argv[2] ?? 10);
const endsAt = performance.now() + minutes * 60_000;
const running = () => performance.now() < endsAt;
const tally = { pipelines: 0, large: 0, unread: 0, broken: 0, published: 0, refused: 0 };

const redis = await startRedis();
const gateway = await startGatewayProcess(redis.url, TOKEN);
const headers = { authorization: `Bearer ${TOKEN}` };
const url = `http://127.0.0.1:${gateway.port}`;

async function post(path: string, body: unknown): Promise<void> {
  const init = { method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body) };
  const response = await fetch(url + path, init);
  if (response.status === 503) tally.refused++;
  else if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  await response.arrayBuffer();
}

const head = (body: string, length = body.length) =>
  `POST / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-length: ${length}\r\n\r\n${body}`;

/** Sends a request, reads nothing of the response for a while, and breaks the connection. */
async function withoutReading(text: string, forMs: number): Promise<void> {
  const socket = connect(gateway.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.pause();
  socket.write(text);
  await sleep(forMs);
  socket.destroy();
}

const loads: (() => Promise<void>)[] = [
  ...Array.from({ length: 8 }, (_, n) => async () => {
    const commands = Array.from({ length: 20 }, (_, i) =>
      i % 2 ? ['GET', `k:${n}`] : ['SET', `k:${n}`, 'x'.repeat(500)],
    );
    await post('/pipeline', commands);
    tally.pipelines++;
    await sleep(5);
  }),
  async () => {
    await post('/', JSON.stringify(['SET', 'large', 'y'.repeat(LARGE)]));
    await post('/', ['GET', 'large']);
    tally.large++;
    await sleep(300);
  },
  ...Array.from({ length: 4 }, () => async () => {
    await withoutReading(head('["GET","large"]'), 1500);
    tally.unread++;
  }),
  async () => {
    await withoutReading(head('["SET","half","', 1_000_000) + 'z'.repeat(500_000), 20);
    tally.broken++;
  },
  async () => {
    await withoutReading(`GET /subscribe/flood HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\n\r\n`, 3000);
    tally.unread++;
  },
  async () => {
    await post('/', ['PUBLISH', 'flood', 'm'.repeat(200_000)]);
    tally.published++;
    await sleep(20);
  },
];

async function memory(): Promise<string> {
  const text = await (await fetch(`${url}/metrics`, { headers })).text();
  const read = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
  const mib = (name: string) => Math.round(read(name) / 2 ** 20);
  const resident = mib('process_resident_memory_bytes');
  const inUse = mib('nodejs_heap_size_used_bytes') + mib('nodejs_external_memory_bytes');
  const gauges = `${read('gateway_http_connections')} connections, ${read('gateway_streams')} streams`;
  return `${resident} MiB resident, ${inUse} MiB in use, ${gauges}`;
}

try {
  await post('/', JSON.stringify(['SET', 'large', 'y'.repeat(LARGE)]));
  console.log(`at the start: ${await memory()}`);
  const startedAt = performance.now();
  const workers = loads.map(async (load) => {
    while (running()) await load();
  });
  while (running()) {
    await sleep(Math.min(30_000, Math.max(100, endsAt - performance.now())));
    console.log(`after ${Math.round((performance.now() - startedAt) / 1000)} s: ${await memory()}`);
  }
  await Promise.all(workers);
  await sleep(5000);
  console.log(`5 s after the load: ${await memory()}`);
  console.log(JSON.stringify(tally));
} finally {
  await gateway.stop();
  await redis.stop();
}
