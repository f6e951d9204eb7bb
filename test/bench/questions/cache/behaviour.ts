import { setTimeout } from 'node:timers/promises';

import type { CaseName, Caches } from './setUp.ts';

/** What a cache did, where caches differ. `undefined`: it has no way to. */
export interface Behaviour {
  /** Serves a second read without its source. */
  hits: boolean;
  /** After `forget(key)` the source is asked again. */
  forgets: boolean;
  /** After an entry's tag was invalidated the source is asked again. */
  invalidatesTags: boolean | undefined;
  /** Sees an invalidation that another isolate made. */
  seesOtherIsolates: boolean;
  /** An entry that is invalidated while it is being filled is not served afterwards. */
  survivesInvalidationDuringFill: boolean;
  /** Statuses other than 200 that several requests get when they ask for the same missing entry at once. */
  concurrentMisses: Failure[];
  /** The same for an entry that is there, with tags that were never invalidated. */
  concurrentTaggedHits: Failure[];
  /** A stale entry is served, and a fresh one is in Redis soon after, where every isolate finds it. */
  refreshesStale: boolean | undefined;
}

/** Past the time for which entries of `/stale` are fresh. */
export const STALE_MS = 1_150;
/** Within the 400 ms that the loader of `/slow` takes. */
const DURING_FILL_MS = 150;
/** Time enough for the work after a response. */
export const SETTLE_MS = 300;

const AT_ONCE = 8;
const HANG_MS = 5_000;

/** A status, or that there was no response. */
type Failure = number | 'nothing';

async function statusOf(url: string): Promise<Failure> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(HANG_MS) });
    await answer.arrayBuffer();
    return answer.status;
  } catch {
    return 'nothing';
  }
}

/** Finds out how a case behaves, without delay. @throws when it does not respond as caches do */
export async function behaviourOf(caches: Caches, name: CaseName): Promise<Behaviour> {
  const ask = async (path: string, isolate: 'measured' | 'other' = 'measured'): Promise<string | undefined> => {
    const answer = await fetch(`${caches.url(name, isolate)}${path}`, { signal: AbortSignal.timeout(15_000) });
    if (answer.status === 404) return undefined;
    const body = await answer.text();
    if (!answer.ok) throw new Error(`${path} answered ${answer.status} ${body.slice(0, 200)}`);
    return body;
  };
  const settled = () => setTimeout(SETTLE_MS);
  const failuresOf = async (path: string) => {
    const answers = Array.from({ length: AT_ONCE }, () => statusOf(`${caches.url(name, 'measured')}${path}`));
    return [...new Set(await Promise.all(answers))].filter((status) => status !== 200 && status !== 404);
  };

  const first = await ask('/read/plain');
  await settled();
  const hits = (await ask('/read/plain')) === first;
  await ask('/forget/plain');
  const forgets = (await ask('/read/plain')) !== first;

  const tagged = await ask('/tagged/red,green,blue/tagged');
  await settled();
  const taggedHits = (await ask('/tagged/red,green,blue/tagged')) === tagged;
  await ask('/invalidate/green');
  const taggedAgain = await ask('/tagged/red,green,blue/tagged');

  await ask('/read/shared');
  await settled();
  const seen = await ask('/read/shared', 'other');
  await ask('/forget/shared');
  const seesOtherIsolates = (await ask('/read/shared', 'other')) !== seen;

  const filling = ask('/slow/filled');
  await setTimeout(DURING_FILL_MS);
  await ask('/forget/filled');
  const filled = await filling;
  await settled();
  const survivesInvalidationDuringFill = (await ask('/read/filled')) !== filled;

  const concurrentMisses = await failuresOf('/slow/crowded');
  await ask('/tagged/cyan,magenta,yellow/crowded-tags');
  await settled();
  const concurrentTaggedHits = await failuresOf('/tagged/cyan,magenta,yellow/crowded-tags');

  const fresh = await ask('/stale/stale');
  await setTimeout(STALE_MS);
  const servesStale = (await ask('/stale/stale')) === fresh;
  await settled();
  const refreshed = (await ask('/stale/stale', 'other')) !== fresh;

  return {
    hits,
    forgets,
    invalidatesTags: tagged === undefined ? undefined : taggedHits && taggedAgain !== tagged,
    seesOtherIsolates,
    survivesInvalidationDuringFill,
    concurrentMisses,
    concurrentTaggedHits,
    refreshesStale: fresh === undefined ? undefined : servesStale && refreshed,
  };
}

/** What there is to say of it beside its figures. */
export function notesOf(behaviour: Behaviour): string[] {
  const { concurrentMisses, concurrentTaggedHits } = behaviour;
  const answers = (failures: Failure[]) => `answers ${failures.join(' or ')} to some of the requests`;
  const notes: [boolean, string][] = [
    [behaviour.invalidatesTags === undefined, 'has no tags'],
    [behaviour.refreshesStale === undefined, 'has no stale-while-revalidate'],
    [!behaviour.seesOtherIsolates, 'does not see what another isolate invalidated (over REST it has no bus)'],
    [!behaviour.survivesInvalidationDuringFill, 'serves the old value when an entry is invalidated during its fill'],
    [concurrentMisses.length > 0, `${answers(concurrentMisses)} that ask for the same missing entry at once`],
    [
      concurrentTaggedHits.length > 0,
      `${answers(concurrentTaggedHits)} that hit an entry at once whose tags were never invalidated`,
    ],
    [
      behaviour.refreshesStale === false,
      'serves a stale entry, and does not get a fresh one to Redis after the response',
    ],
  ];
  return notes.filter(([applies]) => applies).map(([, note]) => note);
}
