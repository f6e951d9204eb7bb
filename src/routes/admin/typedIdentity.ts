import { AppError } from '../../errors';
import type { Counted } from '../../middlewares/contract';
import { UserService } from '../../services/user.service';
import { parseAddress } from '../../util/ipAddress';

/** A typed text with the kind of identity that it names. */
interface Typed {
  address?: string;
  email?: string;
  userId?: string;
  sessionId?: string;
}

export interface ResolvedIdentity {
  /** The identity as the limiter counts it. */
  identity: string;
  /** The account that it belongs to, for the audit. */
  userId: string | undefined;
}

const EXPECTED: Readonly<Record<Counted, string>> = {
  caller: 'an e-mail address, the id of a user, or an IP address',
  address: 'an IP address',
  account: 'an e-mail address, or the id of a user',
  'address-and-account': 'an e-mail address and an IP address, separated by a space',
  session: 'the id of a session',
  'session-or-address': 'the id of a session, or an IP address',
  own: 'the identity as the app makes it',
};

const LABELS = { address: 'address', account: 'email', user: 'userId', session: 'sessionId' } as const;

/** The limiter's own spelling of an IPv6 client's network. */
const isAddress = (text: string) => text === 'unknown' || parseAddress(text.replace(/\/\d+$/, '')) !== undefined;

/** `undefined` for text that matches no kind of identity, or for two texts of one kind. */
function parseTyped(text: string): Typed | undefined {
  const typed: Typed = {};
  for (const word of text.trim().split(/\s+/)) {
    const [, label, labelled] = /^(address|account|user|session):(.+)$/.exec(word) ?? [];
    const value = labelled ?? word;
    const kind = label === undefined ? kindOf(value) : LABELS[label as keyof typeof LABELS];
    if (typed[kind] !== undefined || (kind === 'address' && !isAddress(value))) return undefined;
    if (kind === 'email' && !/^[^@\s]+@[^@\s]+$/.test(value)) return undefined;
    typed[kind] = value;
  }
  return typed;
}

function kindOf(word: string): keyof Typed {
  if (word.includes('@')) return 'email';
  if (word !== 'unknown' && isAddress(word)) return 'address';
  return /^[\w-]+\.[\w-]{16,}$/.test(word) ? 'sessionId' : 'userId';
}

/**
 * An identity as a limiter counts it, from a text that people know: an e-mail address, an IP address in any spelling, the id of
 * a user or a session. Accounts are looked up, so that a mistyped one is an error and not another counter.
 *
 * @throws {AppError} `VALIDATION_FAILED`
 */
export async function resolveIdentity(text: string, counts: Counted): Promise<ResolvedIdentity> {
  if (counts === 'own') return { identity: text, userId: undefined };
  const refuse = (detail: string) => new AppError('VALIDATION_FAILED', { errors: [{ pointer: '/identity', detail }] });
  const typed = parseTyped(text);
  const wrong = () => refuse(`must be ${EXPECTED[counts]}`);
  if (typed === undefined) throw wrong();
  const { address, email, userId, sessionId } = typed;
  const given = Object.keys(typed).length;

  const byAddress = address === undefined ? undefined : { identity: `address:${address}`, userId: undefined };
  const bySession =
    sessionId === undefined ? undefined : { identity: `session:${sessionId}`, userId: sessionId.split('.')[0] };
  /** The account; if it is given by its e-mail address alone, it need not exist. */
  const account = async () => {
    if (userId !== undefined) return accountOf(userId, refuse);
    return email === undefined ? undefined : { email, id: await UserService.idOf(email) };
  };

  switch (counts) {
    case 'address':
      if (given === 1 && byAddress !== undefined) return byAddress;
      break;
    case 'session':
      if (given === 1 && bySession !== undefined) return bySession;
      break;
    case 'session-or-address': {
      const only = bySession ?? byAddress;
      if (given === 1 && only !== undefined) return only;
      break;
    }
    case 'account': {
      const named = given === 1 ? await account() : undefined;
      if (named !== undefined) return { identity: `account:${named.email}`, userId: named.id };
      break;
    }
    case 'address-and-account': {
      const named = given === 2 ? await account() : undefined;
      if (named !== undefined && byAddress !== undefined) {
        return { identity: `${byAddress.identity} account:${named.email}`, userId: named.id };
      }
      break;
    }
    case 'caller': {
      if (given !== 1) break;
      if (byAddress !== undefined) return byAddress;
      const named = await account();
      if (named === undefined) break;
      if (named.id === undefined) throw refuse('is the e-mail address of no account');
      return { identity: `user:${named.id}`, userId: named.id };
    }
  }
  throw wrong();
}

async function accountOf(userId: string, refuse: (detail: string) => AppError) {
  try {
    const { id, email } = await UserService.getUser(userId);
    return { id, email };
  } catch (error) {
    if (error instanceof AppError && error.code === 'NOT_FOUND') throw refuse('is the id of no account');
    throw error;
  }
}
