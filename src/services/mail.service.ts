import { describeError, log } from '../config/log';
import { createInstruments } from '../metrics/instruments';
import type { Instruments } from '../metrics/instruments';
import { AppError } from '../errors';
import type { Mail, Mailer } from './mail/mailer';
import { retry, sleep } from '../util/retry';
import { within } from '../util/within';
import { facade } from './scope';

export type { Mail } from './mail/mailer';

/** Sends mail to an account's owner, after the response. */
export interface MailService {
  /** Whether a mailer is configured. */
  readonly enabled: boolean;
  /** @throws {AppError} `CONFIG_INVALID` without a mailer */
  assertEnabled(): void;
  /**
   * Sends, and retries for some seconds. For `waitUntil`: never rejects. A mail that could not be sent is logged and
   * counted (`/ready`); the user may request another.
   *
   * @param kind the kind of mail, for the log
   * @returns whether the mailer accepted it
   */
  send(kind: string, mail: Mail): Promise<boolean>;
}

declare module './scope' {
  interface ServiceMap {
    mail: MailService;
  }
}

export const MailService: MailService = facade('mail');

/** `waitUntil` has 30 s after the response: enough for three attempts and the pauses between them. */
const WAITS_MS = [1_000, 4_000];
const ATTEMPT_MS = 6_000;

/** The mailer did not respond in time: the mail may have been sent. */
class MailTimeout extends Error {
  override readonly name = 'MailTimeout';
}

export interface MailDeps {
  instruments?: Pick<Instruments, 'mails'>;
  mailer: Mailer | undefined;
  degraded: (what: string) => void;
  /** Waits between attempts. */
  wait?: (ms: number) => Promise<void>;
  attemptMs?: number;
}

export function createMailService({
  mailer,
  degraded,
  instruments = createInstruments(),
  wait = sleep,
  attemptMs = ATTEMPT_MS,
}: MailDeps): MailService {
  const attempt = (through: Mailer, mail: Mail): Promise<void> =>
    within(through.send(mail), attemptMs, () => {
      throw new MailTimeout('no response in time');
    });

  return {
    enabled: mailer !== undefined,

    assertEnabled() {
      if (mailer === undefined) throw new AppError('CONFIG_INVALID', { detail: 'No mail can be sent: set MAILER' });
    },

    async send(kind, mail) {
      if (mailer === undefined) return false;
      try {
        await retry(() => attempt(mailer, mail), {
          waitsMs: WAITS_MS,
          wait,
          isFinal: (error) => mailer.isFinal(error),
        });
      } catch (error) {
        // Log neither the address nor the server's text, which may contain it.
        log('error', 'mail.failed', { kind, final: mailer.isFinal(error), ...describeError(error) });
        instruments.mails.count(kind, 'failed');
        degraded('mail=failed');
        return false;
      }
      instruments.mails.count(kind, 'sent');
      log('info', 'mail.sent', { kind });
      return true;
    },
  };
}
