import { startGateway } from '../../../src/gateway/gateway.ts';
import { startProxy } from './proxy.ts';
import type { ProxyState } from './proxy.ts';

/** Requests of the parent to this process, and its replies. */
export type RedisRequest = { id: number } & RedisOrder;
export type RedisOrder = { setDelayMs: number } | { setState: ProxyState } | { count: true };
export type RedisAnswer =
  | { ready: { url: string; delayedUrl: string; backend: string } }
  | { failed: string }
  | { id: number; trips: number; commands: number };

// A process of its own: neither the engine nor the gateway shares an event loop with the load that they serve.
const answer = (message: RedisAnswer) => process.send?.(message);
const [token = '', redisUrl] = process.argv.slice(2);

try {
  const gateway = await startGateway({ token, port: 0, ...(redisUrl !== undefined && { redisUrl }) });
  const proxy = await startProxy(gateway.url);
  process.on('message', (request: RedisRequest) => {
    if ('setDelayMs' in request) proxy.setDelay(request.setDelayMs);
    if ('setState' in request) proxy.setState(request.setState);
    answer({ id: request.id, ...proxy.counts() });
  });
  process.on('disconnect', () => process.exit(0));
  answer({ ready: { url: gateway.url, delayedUrl: proxy.url, backend: gateway.backend } });
} catch (error) {
  answer({ failed: (error as Error).message });
  process.disconnect();
}
