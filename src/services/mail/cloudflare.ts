import type { Mailer } from './mailer';

/**
 * Codes of what trying again does not change: a message, a sender or a recipient that is not accepted. Any other failure
 * may pass (https://developers.cloudflare.com/email-service/api/send-emails/workers-api/).
 */
const FINAL = /^E_(?:VALIDATION|FIELD|TOO_MANY|SENDER|RECIPIENT|CONTENT|HEADER|DAILY_LIMIT)/;

/** Cloudflare's Email Service. It is given fields, not a MIME text, so nothing in a field can become a header. */
export function createCloudflareMailer(binding: SendEmail, from: EmailAddress): Mailer {
  return {
    async send({ to, subject, text, html }) {
      await binding.send({ from, to, subject, text, ...(html !== undefined && { html }) });
    },
    isFinal: (error) => FINAL.test(String((error as { code?: unknown } | null)?.code)),
  };
}
