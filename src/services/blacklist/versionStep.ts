/** The largest step. Redis's versions are believed up to 1,000,000 ahead of D1's, which is 1,000 changes and more. */
const MOST = 1_000;

/**
 * By how much a change raises a user's epoch or access version: a random number from 1 to 1,000. When D1 was restored from a
 * backup, a later change would else give a version that Redis had under a change which D1 has lost, and tokens of then would be
 * good again. So one and the same version in D1 and Redis means one and the same change (but for one case in 1,000).
 */
export const versionStep = (): number => 1 + Math.floor(Math.random() * MOST);
