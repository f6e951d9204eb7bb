import type { Mailer } from './mailer';

/**
 * The mailbox of `npm run dev`: the terminal, with the tokens that mails carry. The settings refuse it for any issuer that
 * is not of a developer's machine, because a log must not hold tokens.
 */
export function createConsoleMailer(): Mailer {
  return {
    async send({ to, subject, text }) {
      // oxlint-disable-next-line no-console -- it is no log: it is the developer's mailbox
      console.log(`\n── mail to ${to} ──\nSubject: ${subject}\n\n${text.trim()}\n──\n`);
    },
    isFinal: () => true,
  };
}
