import type { Context } from 'hono';

import type { Config } from '../config/env';
import { slidingWindow } from '../services/rateLimit.service';
import type { RateLimitPolicy } from '../services/rateLimit.service';
import { TokenService } from '../services/token.service';
import { normalizeEmail } from '../services/user.service';
import { clientAddress } from './clientAddress';
import type { ConfiguredLimit } from './rateLimiter.middleware';
import type { AppEnv } from './services.middleware';

/** Our own faults are nobody's attempts. */
const charge = (c: Context<AppEnv>) => (c.res.status >= 500 ? 0 : 1);

const address = (c: Context<AppEnv>) => `address:${clientAddress(c)}`;

/** The account that a validated JSON body names. */
async function account(c: Context<AppEnv>): Promise<string> {
  const body: unknown = await c.req.json();
  const email = typeof body === 'object' && body !== null && 'email' in body ? body.email : '';
  return normalizeEmail(String(email));
}

/** The product's limits; their numbers are settings (`LIMIT_…`). */
export const policy = {
  /** Authenticated callers by user, others by address. */
  api: { name: 'api', limit: (limits) => limits.api },
  register: { name: 'register', limit: (limits) => limits.register, identity: address, charge },
  /** Accounts that an e-mail address may have one after the other: each begins with a mail, whoever asked for it. */
  registerAccount: {
    name: 'register-account',
    limit: (limits) => limits.recoveryAccount,
    identity: async (c) => `account:${await account(c)}`,
    message: 'This address was registered too often.',
    charge: (c) => (c.res.status === 201 ? 1 : 0),
  },
  /** By address and account together: one phone must not lock out all that share its address. */
  login: {
    name: 'login',
    limit: (limits) => limits.login,
    identity: async (c) => `${address(c)} account:${await account(c)}`,
    message: 'Too many attempts for this account.',
    charge,
  },
  loginAddress: { name: 'login-address', limit: (limits) => limits.loginAddress, identity: address, charge },
  /** Guesses of the current password, by user. */
  password: { name: 'password', limit: (limits) => limits.login },
  /** Recovery mails that one client address may ask for, to whomever. */
  recovery: { name: 'recovery', limit: (limits) => limits.recovery, identity: address, charge },
  /**
   * By account, from wherever it is asked: nobody floods a mailbox. Accounts that do not exist are counted as well. Whoever
   * uses it up for somebody else has only sent them the links that they would ask for.
   */
  recoveryAccount: {
    name: 'recovery-account',
    limit: (limits) => limits.recoveryAccount,
    identity: async (c) => `account:${await account(c)}`,
    message: 'Too many mails to this account.',
    charge,
  },
  /** Mails that a user may ask for. */
  verification: { name: 'verification', limit: (limits) => limits.verification, charge },
  /** Tokens out of mails that one address may show. */
  oneTimeToken: { name: 'one-time-token', limit: (limits) => limits.oneTimeToken, identity: address, charge },
  /** By session, known from a token whose MAC was checked: garbage costs no call. */
  refresh: {
    name: 'refresh',
    limit: (limits) => limits.refresh,
    identity: async (c) => {
      const body = await c.req.json<{ refresh_token: string }>();
      return `session:${TokenService.readRefresh(body.refresh_token).sessionId}`;
    },
  },
  /** By session; what is no token of ours, by address. */
  revoke: {
    name: 'revoke',
    limit: (limits) => limits.api,
    identity: async (c) => {
      const { token } = await c.req.json<{ token: string }>();
      const recognized = await TokenService.recognize(token);
      return recognized === undefined ? address(c) : `session:${recognized.sessionId}`;
    },
  },
} as const satisfies Record<string, ConfiguredLimit>;

/** Names as headers and refusals show them. */
export const POLICY_NAMES = Object.values(policy).map(({ name }) => name);

/** A policy's numbers as they are set now, for those who look into its counters. */
export function policyNamed(name: (typeof POLICY_NAMES)[number], limits: Config['limits']): RateLimitPolicy {
  const found = Object.values(policy).find((candidate) => candidate.name === name) ?? policy.api;
  const { maxRequests, windowMs } = found.limit(limits);
  return { name, limits: [slidingWindow(maxRequests, windowMs)] };
}
