import { describeError, log } from '../config/log';
import { createInstruments } from '../metrics/instruments';
import type { Instruments } from '../metrics/instruments';
import { AppError } from '../errors';
import type { Mail, Mailer } from './mail/mailer';
import { retry, sleep } from '../util/retry';
import { within } from '../util/within';
import { facade } from './scope';

export type { Mail } from './mail/mailer';

/** Mail to an account's owner, sent after the response. */
export interface MailService {
  /** Whether there is a mailer. */
  readonly enabled: boolean;
  /** @throws {AppError} `CONFIG_INVALID` without a mailer */
  assertEnabled(): void;
  /**
   * Sends, and tries again for some seconds. For `waitUntil`: never rejects. A mail that could not be sent is logged and counted
   * (`/ready`); its reader may ask for another.
   *
   * @param kind what it is, for the log
   * @returns whether it was taken over
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

/** No response in time: the mail may have been sent. */
class MailTimeout extends Error {
  override readonly name = 'MailTimeout';
}

export interface MailDeps {
  instruments?: Pick<Instruments, 'mails'>;
  mailer: Mailer | undefined;
  degraded: (what: string) => void;
  /** Between attempts. */
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
        // Neither the address nor what a server says of it.
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
