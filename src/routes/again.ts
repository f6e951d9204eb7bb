import { AppError, unavailable } from '../errors';
import type { Again, IdempotentOptions } from '../middlewares/idempotent.middleware';
import { account } from '../middlewares/policy';
import { AuthService } from '../services/auth.service';
import type { IssuedTokens } from '../services/auth.service';

/**
 * How repeats of the app's own writes get their response. Tokens are made again from the inputs of the first ones, so neither
 * Redis nor D1 holds any token.
 */

/** The same response in every case: a mail may have been sent. */
export const ACCEPTED = { status: 'accepted' } as const;

const from = (again: Again) => ({ keep: false, again }) satisfies IdempotentOptions;

/** The inputs of the first tokens. A restore of D1 may lose them: then repeats get 503 until Redis forgets the key. */
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

/** For requests without a session: a phone that retries may have another IP address. */
export const byAccount = {
  identity: async (c) => `account:${await account(c)}`,
} satisfies Pick<IdempotentOptions, 'identity'>;
/** The same, by the token from a mail. */
export const byToken = {
  identity: async (c) => `token:${(await c.req.json<{ token: string }>()).token}`,
} satisfies Pick<IdempotentOptions, 'identity'>;
