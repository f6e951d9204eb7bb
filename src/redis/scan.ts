import type { RedisBatch } from './batch';
import { RedisUnavailable } from './errors';

/** Keys examined in one trip. A walk over 100,000 keys takes 20 trips, and blocks Redis for a few milliseconds each. */
const COUNT = 5_000;

export interface WalkOptions {
  /** The cursor returned by an earlier walk. @default the beginning */
  cursor?: string | undefined;
  /** No page is started after this time, in milliseconds. */
  budgetMs: number;
  now?: () => number;
}

/**
 * Walks the key space page by page. SCAN returns every key that exists throughout the walk, and some keys twice. Between
 * two calls only the cursor is kept.
 *
 * @param visit receives matching keys, never an empty page
 * @returns the cursor to continue from; `null` at the end
 * @throws {RedisUnavailable | RedisReplyError}
 */
export async function walkKeys(
  batch: RedisBatch,
  match: string,
  visit: (keys: readonly string[]) => Promise<void>,
  { cursor: from = '0', budgetMs, now = Date.now }: WalkOptions,
): Promise<string | null> {
  const untilMs = now() + budgetMs;
  let cursor = from;
  do {
    const page = await batch.send('SCAN', cursor, 'MATCH', match, 'COUNT', COUNT);
    if (!Array.isArray(page) || !Array.isArray(page[1])) throw new RedisUnavailable('garbage');
    const found = page[1].map(String);
    if (found.length > 0) await visit(found);
    // Only now: when the next cursor is returned, the keys of this page must have been visited.
    cursor = String(page[0]);
  } while (cursor !== '0' && now() < untilMs);
  return cursor === '0' ? null : cursor;
}

/** Escapes a text as a glob that matches exactly this text. */
export function escapeGlob(text: string): string {
  return text.replaceAll(/[*?[\]\\^]/g, String.raw`\$&`);
}
