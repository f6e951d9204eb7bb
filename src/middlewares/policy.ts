import type { Context } from 'hono';

import { configOf } from '../config/env';
import { TokenService } from '../services/token.service';
import { normalizeEmail } from '../services/user.service';
import { authOf } from './auth.middleware';
import { mailboxOf } from '../util/mailbox';
import { clientAddress } from './clientAddress';
import type { ConfiguredLimit } from './rateLimiter.middleware';
import type { AppEnv } from './services.middleware';

/** 5xx responses do not count against the caller. */
const charge = (c: Context<AppEnv>) => (c.res.status >= 500 ? 0 : 1);

const address = (c: Context<AppEnv>) => `address:${clientAddress(c)}`;

/**
 * By session where the request is authenticated. A thief with a stolen access token can only use up the counters of that
 * session; the owner's other sessions, and a new login, have their own.
 */
const bySession = {
  identity: (c: Context<AppEnv>) => {
    const auth = authOf(c);
    return auth === undefined ? address(c) : `session:${auth.sessionId}`;
  },
  counts: 'session-or-address',
} as const;

/** A correct password gives its unit back. */
const chargeFailures = (c: Context<AppEnv>) => (c.res.status >= 500 || c.res.status === 200 ? 0 : 1);

/** The account that a validated JSON body names. */
export async function account(c: Context<AppEnv>): Promise<string> {
  const body: unknown = await c.req.json();
  const email = typeof body === 'object' && body !== null && 'email' in body ? body.email : '';
  return normalizeEmail(String(email));
}

/** The product's limits; their numbers are settings (`LIMIT_…`). */
export const policy = {
  /** Authenticated callers by user, others by address. */
  api: { name: 'api', limit: (limits) => limits.api },
  /** Administrators' requests, by user: the console polls every few seconds. */
  admin: { name: 'admin', limit: (limits) => limits.admin },
  register: { name: 'register', limit: (limits) => limits.register, identity: address, counts: 'address', charge },
  registerDay: {
    name: 'register-day',
    limit: (limits) => limits.registerDay,
    identity: address,
    counts: 'address',
    charge,
  },
  /** Mails to one mailbox that its owner has not asked for, for all its addresses together. */
  mailbox: {
    name: 'mailbox',
    limit: (limits) => limits.mailbox,
    identity: async (c) => `mailbox:${mailboxOf(await account(c))}`,
    counts: 'own',
    message: 'Too many mails to this mailbox.',
    charge: (c) => (c.res.status === 201 && !c.res.headers.has('Idempotency-Replayed') ? 1 : 0),
  },
  /** Registrations per mailbox, over time: each of them sends a mail there. */
  registerAccount: {
    name: 'register-account',
    limit: (limits) => limits.recoveryAccount,
    identity: async (c) => `account:${await account(c)}`,
    counts: 'account',
    message: 'This address was registered too often.',
    charge: (c) => (c.res.status === 201 && !c.res.headers.has('Idempotency-Replayed') ? 1 : 0),
  },
  /** By address and account together: one phone must not lock out all that share its address. */
  login: {
    name: 'login',
    limit: (limits) => limits.login,
    identity: async (c) => `${address(c)} account:${await account(c)}`,
    counts: 'address-and-account',
    message: 'Too many attempts for this account.',
    charge: chargeFailures,
  },
  /** All logins of an address: each costs the isolate a password hash. */
  loginAddress: {
    name: 'login-address',
    limit: (limits) => limits.loginAddress,
    identity: address,
    counts: 'address',
    charge,
  },
  /** Guesses of the current password. */
  password: { name: 'password', limit: (limits) => limits.login, ...bySession },
  reauthenticate: {
    name: 'reauthenticate',
    limit: (limits) => limits.login,
    ...bySession,
    charge: chargeFailures,
  },
  /**
   * Routes that an owner needs against a thief: each has its own counters, which no other route uses up. Only ending the
   * session uses up those of `logout`.
   */
  logout: { name: 'logout', limit: (limits) => limits.account, ...bySession },
  sessions: { name: 'sessions', limit: (limits) => limits.account, ...bySession },
  endSession: { name: 'end-session', limit: (limits) => limits.account, ...bySession },
  events: { name: 'events', limit: (limits) => limits.account, ...bySession },
  export: { name: 'export', limit: (limits) => limits.account, ...bySession },
  deleteAccount: { name: 'delete-account', limit: (limits) => limits.account, ...bySession },
  /** Recovery mails that one client address may ask for, for all recipients together. */
  recovery: { name: 'recovery', limit: (limits) => limits.recovery, identity: address, counts: 'address', charge },
  /**
   * By account, from all addresses together, so that a mailbox cannot be flooded. Accounts that do not exist count as well. An
   * attacker who uses it up has only sent the owner the links that the owner needs.
   */
  recoveryAccount: {
    name: 'recovery-account',
    limit: (limits) => limits.recoveryAccount,
    identity: async (c) => `account:${await account(c)}`,
    counts: 'account',
    message: 'Too many mails to this account.',
    charge,
  },
  /** The same for mails that delete an account: counters of their own, so that neither kind of mail uses up the other. */
  deletion: { name: 'deletion', limit: (limits) => limits.recovery, identity: address, counts: 'address', charge },
  deletionAccount: {
    name: 'deletion-account',
    limit: (limits) => limits.recoveryAccount,
    identity: async (c) => `account:${await account(c)}`,
    counts: 'account',
    message: 'Too many mails to this account.',
    charge,
  },
  /** Mails that a user may ask for. */
  verification: { name: 'verification', limit: (limits) => limits.verification, charge },
  /** Changes of the e-mail address that a session may ask for; see also `emailChangeMailbox`. */
  emailChange: {
    name: 'email-change',
    limit: (limits) => limits.verification,
    ...bySession,
    charge: (c) => (c.res.status === 202 ? 1 : 0),
  },
  /** The same by mailbox. It does not share `mailbox`: its remaining units would reveal that the address was registered today. */
  emailChangeMailbox: {
    name: 'email-change-mailbox',
    limit: (limits) => limits.mailbox,
    identity: async (c) => `mailbox:${mailboxOf(await account(c))}`,
    counts: 'own',
    message: 'Too many mails to this mailbox.',
    charge: (c) => (c.res.status === 202 ? 1 : 0),
  },
  /** Tokens from mails that one client address may present. */
  oneTimeToken: {
    name: 'one-time-token',
    limit: (limits) => limits.oneTimeToken,
    identity: address,
    counts: 'address',
    charge,
  },
  /** By session, read from a token whose MAC was verified: an invalid token costs no call to Redis. */
  refresh: {
    name: 'refresh',
    limit: (limits) => limits.refresh,
    counts: 'session',
    identity: async (c) => {
      const body = await c.req.json<{ refresh_token: string }>();
      return `session:${TokenService.readRefresh(body.refresh_token).sessionId}`;
    },
  },
  /** By session; for a text that is not one of our tokens, by address. */
  revoke: {
    name: 'revoke',
    limit: (limits) => limits.api,
    counts: 'session-or-address',
    identity: async (c) => {
      const { token } = await c.req.json<{ token: string }>();
      const recognized = await TokenService.recognize(token);
      return recognized === undefined ? address(c) : `session:${recognized.sessionId}`;
    },
  },
} as const satisfies Record<string, ConfiguredLimit>;

/** `within` for the app's own reads, from the setting `READS_WITHIN_MS`. */
export const readsWithin = {
  within: (c: Context<AppEnv>) => configOf(c.env).readsWithinMs,
} as const;
