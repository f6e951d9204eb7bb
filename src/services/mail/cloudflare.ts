import type { Mailer } from './mailer';

/**
 * Codes for which a retry is useless: the message, its sender or its recipient is not accepted. Other failures may be
 * temporary (https://developers.cloudflare.com/email-service/api/send-emails/workers-api/).
 */
const FINAL = /^E_(?:VALIDATION|FIELD|TOO_MANY|SENDER|RECIPIENT|CONTENT|HEADER|DAILY_LIMIT)/;

/** Cloudflare's Email Service. It takes fields instead of a MIME text, so the content of a field cannot become a header. */
export function createCloudflareMailer(binding: SendEmail, from: EmailAddress): Mailer {
  return {
    async send({ to, subject, text, html }) {
      await binding.send({ from, to, subject, text, ...(html !== undefined && { html }) });
    },
    isFinal: (error) => FINAL.test(String((error as { code?: unknown } | null)?.code)),
  };
}
