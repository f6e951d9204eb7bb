import { AppError, unavailable } from '../errors';
import type { Again, IdempotentOptions } from '../middlewares/idempotent.middleware';
import { account } from '../middlewares/policy';
import { AuthService } from '../services/auth.service';
import type { IssuedTokens } from '../services/auth.service';

/**
 * How the app's own writes are repeated. Their responses with tokens are made anew out of what the tokens were made of, so
 * neither Redis nor D1 holds any.
 */

/** What is said whatever happens next: a mail may be on its way. */
export const ACCEPTED = { status: 'accepted' } as const;

const from = (again: Again) => ({ keep: false, again }) satisfies IdempotentOptions;

/** What left no tokens behind, as when D1 was restored from a backup meanwhile, runs again once Redis has forgotten it. */
function issuedBy(reference: unknown): IssuedTokens {
  // The account was deleted.
  if (reference === null) throw new AppError('TOKEN_REVOKED');
  if (reference === undefined) throw unavailable('The response');
  return reference as IssuedTokens;
}

export const done = from((c) => c.body(null, 204));
export const accepted = from((c) => c.json(ACCEPTED, 202));
export const renewed = from(async (c, reference) => {
  const { user: _, ...tokens } = await AuthService.reissue(issuedBy(reference));
  return c.json(tokens, 200);
});
export const signedIn = (status: 200 | 201) =>
  from(async (c, reference) => c.json(await AuthService.reissue(issuedBy(reference)), status));

/** For those who have no session: a phone that tries again may have another address. */
export const byAccount = {
  identity: async (c) => `account:${await account(c)}`,
} satisfies Pick<IdempotentOptions, 'identity'>;
/** Likewise, by the token out of a mail. */
export const byToken = {
  identity: async (c) => `token:${(await c.req.json<{ token: string }>()).token}`,
} satisfies Pick<IdempotentOptions, 'identity'>;
