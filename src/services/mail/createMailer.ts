import type { Config } from '../../config/env';
import { createCloudflareMailer } from './cloudflare';
import { createConsoleMailer } from './console';
import type { Mailer } from './mailer';

/** @returns `undefined` if mail is disabled in the settings (`MAILER=none`) */
export function createMailer({ mailer, from, appName }: Config['mail'], binding?: SendEmail): Mailer | undefined {
  switch (mailer) {
    case 'console':
      return createConsoleMailer();
    case 'cloudflare':
      // Without either of them, the settings would have been refused.
      return binding && from !== undefined
        ? createCloudflareMailer(binding, { email: from, name: appName })
        : undefined;
    case 'none':
      return undefined;
  }
}
