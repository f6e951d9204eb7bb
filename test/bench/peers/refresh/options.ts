import type { BetterAuthOptions } from 'better-auth';

/** What of its configuration decides which tables better-auth needs. */
export const OPTIONS = {
  emailAndPassword: { enabled: true },
} satisfies BetterAuthOptions;
