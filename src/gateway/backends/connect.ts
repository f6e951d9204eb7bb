import { describeAddress, parseAddress } from '../address.ts';
import type { Backend, BackendOptions } from '../backend.ts';
import { type EmbeddedOptions, startEmbeddedEngine } from '../embedded.ts';
import { ClusterBackend } from './cluster.ts';
import { DirectBackend } from './direct.ts';
import { SentinelBackend } from './sentinel.ts';

/** Connects to the Redis of an address. */
export function connectTo(redisUrl: string, tlsCaFile: string | undefined, options: BackendOptions): Backend {
  const address = parseAddress(redisUrl, tlsCaFile);
  const description = describeAddress(address);
  switch (address.kind) {
    case 'direct':
      return new DirectBackend({ resolve: () => Promise.resolve(address.endpoint) }, description, options);
    case 'sentinel':
      return new SentinelBackend(address, description, options);
    case 'cluster':
      return new ClusterBackend(address.seeds, description, options);
  }
}

/** Starts the embedded engine, and connects to it once as each of its two users. */
export async function connectToEmbedded(
  options: BackendOptions,
  engineOptions: EmbeddedOptions,
): Promise<{ full: Backend; readOnly: Backend; stop: () => Promise<void> }> {
  const engine = await startEmbeddedEngine(engineOptions);
  // SCRIPT KILL does not reach the engine while a script runs: its watchdog ends a script that does not return.
  const connect = (endpoint: typeof engine.endpoint) =>
    new DirectBackend({ resolve: () => Promise.resolve(endpoint) }, `embedded ${engine.version}`, {
      ...options,
      scriptTimeoutMs: 0,
    });
  return { full: connect(engine.endpoint), readOnly: connect(engine.readOnlyEndpoint), stop: () => engine.stop() };
}
