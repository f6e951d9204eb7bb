import type { Mailer } from './mailer';

/**
 * The mailbox of `npm run dev`: prints mails to the terminal, including their tokens. The settings refuse it unless the
 * issuer is on a developer's machine, because a log must not hold tokens.
 */
export function createConsoleMailer(): Mailer {
  return {
    async send({ to, subject, text }) {
      // oxlint-disable-next-line no-console -- this is not a log but the developer's mailbox
      console.log(`\n── mail to ${to} ──\nSubject: ${subject}\n\n${text.trim()}\n──\n`);
    },
    isFinal: () => true,
  };
}
