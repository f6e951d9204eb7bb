import { aclLines } from './acl.ts';
import type { Backend } from './backend.ts';
import type { Log } from './log.ts';
import { type Permissions, readPermissions } from './permissions.ts';

type Token = 'full' | 'read-only';

/** Whether clients with the read-only token may run scripts; a reason when not. */
export type ScriptsRefused = string | undefined;

const NO_USER_OF_ITS_OWN = 'the gateway has no Redis user for it (REDIS_READONLY_URL)';
const NOT_CHECKED = 'Redis has not said yet what the user of REDIS_READONLY_URL may do';

/**
 * Finds out what the Redis users behind the gateway may do, once each is connected, and says so in the log: a warning
 * where a client could do more by a script than its token should allow.
 */
export class PermissionCheck {
  readonly #log: Log;
  readonly #selects: boolean;
  #readOnlyRefused: ScriptsRefused;
  /** Tokens whose user is being asked about, or is known. */
  readonly #asked = new Set<Token>();
  /** Tokens for which the log has said already that their user is unknown. */
  readonly #unknown = new Set<Token>();

  /**
   * @param readOnlyUser the Redis user of the read-only token: its own, whose rights are to be asked for, none, or that
   *   of the embedded engine, which the gateway has made itself
   */
  constructor(log: Log, { readOnlyUser, selects }: { readOnlyUser: 'own' | 'none' | 'embedded'; selects: boolean }) {
    this.#log = log;
    this.#selects = selects;
    this.#readOnlyRefused = { own: NOT_CHECKED, none: NO_USER_OF_ITS_OWN, embedded: undefined }[readOnlyUser];
  }

  /** Why the read-only token may not run scripts at present. */
  readonly scriptsRefused = (): ScriptsRefused => this.#readOnlyRefused;

  /** Asks for the full token's user. Never rejects; asks again the next time when Redis could not be asked. */
  async checkFull(backend: Backend): Promise<void> {
    const found = await this.#ask(backend, 'full');
    if (!found) return;
    const { user, inScripts, refusedByGateway } = found;
    if (inScripts.length === 0) {
      this.#log({ level: 'info', event: 'redis_user', token: 'full', user, beyondData: [], refusedByGateway });
      return;
    }
    const [full, readOnly] = aclLines(this.#selects);
    this.#log({
      level: 'warn',
      event: 'redis_user_too_powerful',
      token: 'full',
      user,
      beyondData: inScripts,
      refusedByGateway,
      advice: 'Scripts can run these commands. Make users for the gateway with the two lines of aclLines in redis-cli.',
      aclLines: [full, readOnly],
    });
  }

  /** The same for the read-only token's user; only when it cannot write its scripts are allowed. */
  async checkReadOnly(backend: Backend): Promise<void> {
    const found = await this.#ask(backend, 'read-only');
    if (!found) return;
    const { user, inScripts, writes } = found;
    const tooMuch = [...writes, ...inScripts];
    if (tooMuch.length === 0) {
      this.#readOnlyRefused = undefined;
      this.#log({ level: 'info', event: 'redis_user', token: 'read-only', user, beyondData: [] });
      return;
    }
    this.#readOnlyRefused = `the user of REDIS_READONLY_URL may do more than read`;
    const [, line] = aclLines(this.#selects);
    const advice = 'Scripts stay refused to the read-only token. Make a user for it with aclLines in redis-cli.';
    this.#log({
      level: 'error',
      event: 'redis_user_too_powerful',
      token: 'read-only',
      user,
      beyondData: tooMuch,
      advice,
      aclLines: [line],
    });
  }

  /** Asks once for each token; again at the next connection if the rights could not be read. */
  async #ask(backend: Backend, token: Token): Promise<Permissions | undefined> {
    if (this.#asked.has(token) || !backend.connected) return undefined;
    this.#asked.add(token);
    const found = await readPermissions(backend);
    if (found) return found;
    this.#asked.delete(token);
    if (backend.connected && !this.#unknown.has(token)) {
      this.#unknown.add(token);
      this.#log({ level: 'warn', event: 'redis_user_unknown', token, reason: UNKNOWN });
    }
    return undefined;
  }
}

const UNKNOWN =
  'Redis does not report what its user may do: it is older than version 7, or the user may not run EVAL_RO';
