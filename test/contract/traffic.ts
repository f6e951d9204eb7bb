import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { post } from './suite.ts';

/** What became of the traffic so far. */
export interface Tally {
  /** INCRs that were answered with a number. */
  acknowledged: number;
  /** INCRs whose error says that they may have run. */
  uncertain: number;
  /** INCRs that were refused before they were sent. */
  refused: number;
  /** Answers that cannot be: a number that does not follow the last, another client's value, an unknown error. */
  wrong: string[];
}

/** Traffic of several clients, each with a counter of its own, so that each knows what its answers must be. */
export interface Traffic {
  readonly tally: Tally;
  /** Ends the traffic and waits for its last answers. */
  stop(): Promise<void>;
  /** What each counter holds now, by asking Redis. */
  counts(): Promise<number[]>;
  /** By counter: how many of its INCRs were acknowledged, and how many may have run without that being known. */
  readonly perKey: { key: string; acknowledged: number; uncertain: number }[];
}

/** The words of Redis, and of the gateway, for "not at present". */
const UNAVAILABLE = /^(?:UNAVAILABLE|CLUSTERDOWN|LOADING|MASTERDOWN|READONLY) /;

type Slot = { result?: unknown; error?: string };

/**
 * Keeps sending until the test ends, per key and one after the other: INCR and GET in a pipeline, alone, and in a transaction in turn.
 * @param lossless whether an acknowledged INCR must still be there later: a failover may lose the newest ones
 */
export function startTraffic(gateway: Gateway, keys: readonly string[], { lossless }: { lossless: boolean }): Traffic {
  const tally: Tally = { acknowledged: 0, uncertain: 0, refused: 0, wrong: [] };
  const stopping = new AbortController();
  const perKey = keys.map((key) => ({ key, acknowledged: 0, uncertain: 0 }));

  async function worker(state: (typeof perKey)[number]): Promise<void> {
    const { key } = state;
    let last = 0;
    /** Failures since the last acknowledged INCR: each may have added one. */
    let unsure = 0;
    for (let round = 0; !stopping.signal.aborted; round++) {
      const path = round % 3 === 0 ? '/multi-exec' : '/pipeline';
      const { status, body } = await post(gateway, path, [
        ['INCR', key],
        ['GET', key],
        ['ECHO', key],
      ]);
      const [incr, get, echo] = Array.isArray(body) ? (body as Slot[]) : [body as Slot, undefined, undefined];
      const error = incr?.error;
      if (error === undefined) {
        const value = Number(incr?.result);
        const lowest = lossless ? last + 1 : 1;
        if (!(value >= lowest && value <= last + 1 + unsure)) {
          tally.wrong.push(`${key}: ${value} after ${last} and ${unsure} uncertain`);
        }
        if (get?.error === undefined && get?.result !== String(value))
          tally.wrong.push(`${key}: GET ${String(get?.result)}, INCR ${value}`);
        if (echo?.error === undefined && echo?.result !== key) tally.wrong.push(`${key}: ECHO ${String(echo?.result)}`);
        last = value;
        unsure = 0;
        state.acknowledged++;
        tally.acknowledged++;
      } else if (!UNAVAILABLE.test(error)) {
        tally.wrong.push(`${key}: ${status} ${error}`);
      } else if (error.includes('may have run')) {
        unsure++;
        state.uncertain++;
        tally.uncertain++;
      } else {
        tally.refused++;
      }
      if (error !== undefined) await sleep(10);
    }
  }

  const workers = perKey.map((state) => worker(state));
  onTestFinished(async () => {
    stopping.abort();
    await Promise.all(workers);
  });
  return {
    tally,
    perKey,
    async stop() {
      stopping.abort();
      await Promise.all(workers);
    },
    async counts() {
      const { body } = await post(
        gateway,
        '/pipeline',
        keys.map((key) => ['GET', key]),
      );
      return (body as { result: string | null }[]).map(({ result }) => Number(result ?? 0));
    },
  };
}
