import type { Config } from '../../config/env';

const DAY_SECONDS = 86_400;

/** The hash outlives the longest refresh token: while it exists, tokens that it does not deny are allowed. */
export function blacklistTtlMs(config: Config): number {
  return (config.tokens.refreshAbsoluteSeconds + DAY_SECONDS) * 1_000;
}
