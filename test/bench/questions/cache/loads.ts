import { setTimeout } from 'node:timers/promises';

import type { Target } from '../../support/load.ts';
import { SETTLE_MS, STALE_MS } from './behaviour.ts';
import type { Behaviour } from './behaviour.ts';

export const LOADS = ['hit', 'miss', 'stale', '3 tags', '10 keys', 'invalidate a tag'] as const;
export type LoadName = (typeof LOADS)[number];

/** Entries under the tag that is invalidated. */
export const TAGGED_ENTRIES = 10_000;
const FILL_AT_ONCE = 200;

const TAGS = ['one', 'two', 'three'];
const TAGGED_HIT = `/tagged/${TAGS.join(',')}/tagged-hit`;

/** Whether a case has a way to do it. */
export function applies(kind: LoadName, { invalidatesTags, refreshesStale }: Behaviour): boolean {
  if (kind === 'stale') return refreshesStale !== undefined;
  return (kind !== '3 tags' && kind !== 'invalidate a tag') || invalidatesTags !== undefined;
}

export interface CacheLoads {
  target(kind: LoadName): Target;
  /** Makes what a load reads: its entries, as many stale ones, or those under the tag. */
  prepare(kind: LoadName, staleEntries: number): Promise<void>;
}

/** The requests of one case. No two of `miss` and of `stale` ask for the same entry. */
export function loadsOf(url: string): CacheLoads {
  let missed = 0;
  let stale = 0;
  const at = (path: string): Target => ({
    url: `${url}${path}`,
    // A response that was made without Redis would be a quick one.
    forbiddenHeader: 'Gatehouse-Degraded',
  });
  const targets: Record<LoadName, Target> = {
    hit: at('/read/hit'),
    miss: {
      ...at('/read/miss'),
      next() {
        missed += 1;
        return { path: `/read/miss-${missed}` };
      },
    },
    stale: {
      ...at('/'),
      next() {
        stale += 1;
        return { path: `/stale/stale-${stale}` };
      },
    },
    '3 tags': at(TAGGED_HIT),
    '10 keys': at('/many/hit'),
    'invalidate a tag': at('/invalidate/crowd'),
  };
  const ask = async (path: string) => {
    const answer = await fetch(`${url}${path}`, { signal: AbortSignal.timeout(30_000) });
    const body = await answer.text();
    if (!answer.ok) throw new Error(`${path} answered ${answer.status} ${body.slice(0, 200)}`);
    return body;
  };
  const fillTag = async () => {
    for (let from = 0; from < TAGGED_ENTRIES; from += FILL_AT_ONCE) await ask(`/fill/crowd/${from}/${FILL_AT_ONCE}`);
    await setTimeout(SETTLE_MS);
    const entry = `/tagged/crowd/crowd-${TAGGED_ENTRIES - 1}`;
    const before = await ask(entry);
    if ((await ask(entry)) !== before) throw new Error('the entries under the tag were not cached');
    await ask('/invalidate/crowd');
    if ((await ask(entry)) === before) throw new Error('the entries under the tag were not invalidated');
  };
  return {
    target: (kind) => targets[kind],
    async prepare(kind, staleEntries) {
      if (kind === 'invalidate a tag') {
        await fillTag();
      } else if (kind === 'stale') {
        for (let i = 1; i <= staleEntries; i += 1) await ask(`/stale/stale-${i}`);
        await setTimeout(STALE_MS);
      } else {
        // Tags that were invalidated before: bentocache has no end of trouble with those that never were.
        if (kind === '3 tags') for (const tag of TAGS) await ask(`/invalidate/${tag}`);
        // By one request alone: not every case survives several that ask for the same missing entry.
        await ask(new URL(targets[kind].url).pathname);
        await setTimeout(SETTLE_MS);
      }
    },
  };
}
