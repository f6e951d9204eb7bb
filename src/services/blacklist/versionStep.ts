/**
 * The largest step. Versions in Redis are accepted up to 1,000,000 ahead of D1's, which allows for at least 1,000 lost
 * changes.
 */
const MOST = 1_000;

/**
 * The increment of a user's epoch or access version for a change: a random number from 1 to 1,000. With a fixed step, a
 * change after D1 was restored from a backup could reuse the version of a lost change, and tokens from that time would be
 * valid again. With random steps, equal versions in D1 and Redis mean the same change (except in one case of 1,000).
 */
export const versionStep = (): number => 1 + Math.floor(Math.random() * MOST);
