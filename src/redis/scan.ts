import type { RedisBatch } from './batch';
import { RedisUnavailable } from './errors';

/** Keys looked at in a trip. A walk over 100,000 keys takes 20, and holds Redis up for a few milliseconds each. */
const COUNT = 5_000;

export interface WalkOptions {
  /** Where an earlier walk stopped. @default the beginning */
  cursor?: string | undefined;
  /** No page is begun after this, in milliseconds. */
  budgetMs: number;
  now?: () => number;
}

/**
 * Walks the key space page by page (SCAN: what is there all the time is found, some of it twice). It holds nothing between
 * two calls but its cursor.
 *
 * @param visit keys that match, and never an empty page
 * @returns the cursor to go on from; `null` at the end
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
    // Only now: what a page held has been visited when its successor's cursor is given out.
    cursor = String(page[0]);
  } while (cursor !== '0' && now() < untilMs);
  return cursor === '0' ? null : cursor;
}

/** A text as a glob that matches it alone. */
export function escapeGlob(text: string): string {
  return text.replaceAll(/[*?[\]\\^]/g, String.raw`\$&`);
}
