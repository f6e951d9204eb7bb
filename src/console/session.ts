import { ApiError, createClient, memoryStorage, NetworkError } from '../client/index.ts';
import type { SignedOutReason, User } from '../client/index.ts';

export { ApiError, NetworkError, SessionChangedError } from '../client/index.ts';
export type * from '../client/contract.ts';

/** Tokens live in this page's memory, and are gone with it. Errors are shown at once; polling is the retry. */
export const client = createClient({
  baseUrl: location.origin,
  storage: memoryStorage(),
  timeoutMs: 8_000,
  retryBudgetMs: 0,
});

export type SignIn = { user: User } | { error: string };

/** @throws nothing: the outcome says what to show */
export async function signIn(email: string, password: string): Promise<SignIn> {
  try {
    const { user } = await client.login({ email, password, device: 'Console' });
    if (user.role === 'admin') return { user };
    await client.signOut();
    return { error: 'This account is no administrator’s. The command line makes one: npm run admin -- grant EMAIL' };
  } catch (error) {
    return { error: describe(error) };
  }
}

const ENDED: Readonly<Record<SignedOutReason, string>> = {
  'signed-out': '',
  replaced: '',
  revoked: 'Your session was ended. Sign in again.',
  reused: 'Your session was ended because an old token of it was used. Sign in again.',
  expired: 'Your session has expired. Sign in again.',
  invalid: 'Your session is no longer valid. Sign in again.',
  elsewhere: '',
};

export const endedText = (reason: SignedOutReason): string => ENDED[reason];

/** An error's text for people. */
export function describe(error: unknown): string {
  if (error instanceof NetworkError) return 'The server cannot be reached.';
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : 'Something went wrong.';
  const fields = error.problem.errors?.map(({ pointer, parameter, detail }) =>
    `${(pointer ?? parameter ?? '').replace('/', '')} ${detail}`.trim(),
  );
  const wait = error.retryAfterSeconds === undefined ? '' : ` Try again in ${error.retryAfterSeconds} s.`;
  return `${fields?.join('; ') ?? error.message}.${wait}`.replace(/\.\.( |$)/, '.$1');
}
