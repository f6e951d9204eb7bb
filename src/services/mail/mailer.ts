import type { Config } from '../../config/env';
import { createCloudflareMailer } from './cloudflare';
import { createConsoleMailer } from './console';

/** One message to one person. */
export interface Mail {
  to: string;
  /** One line. */
  subject: string;
  text: string;
  html?: string;
}

/** A way to send mail. */
export interface Mailer {
  /** Resolves once the message was taken over. @throws {Error} with a `code`, where there is one */
  send(mail: Mail): Promise<void>;
  /** Whether another attempt would change nothing. */
  isFinal(error: unknown): boolean;
}

/** @returns `undefined` where the settings say that nothing is sent (`MAILER=none`) */
export function createMailer({ mailer, from, appName }: Config['mail'], binding?: SendEmail): Mailer | undefined {
  switch (mailer) {
    case 'console':
      return createConsoleMailer();
    case 'cloudflare':
      // The settings were refused without either of them.
      return binding && from !== undefined
        ? createCloudflareMailer(binding, { email: from, name: appName })
        : undefined;
    case 'none':
      return undefined;
  }
}
