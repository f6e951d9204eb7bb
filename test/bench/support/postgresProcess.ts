import { startWireProxy } from './postgresWire.ts';
import type { WireCounts } from './postgresWire.ts';

/** What this process sends to its parent: its port at the start, and the counts whenever the parent sends anything. */
export type WireAnswer = { port: number } | { counts: WireCounts };

// A process of its own, which does not share an event loop with the load.
const answer = (message: WireAnswer) => process.send?.(message);
const proxy = await startWireProxy(Number(process.argv[2]));
process.on('message', () => answer({ counts: proxy.counts() }));
process.on('disconnect', () => process.exit(0));
answer({ port: proxy.port });
