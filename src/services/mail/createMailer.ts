import type { Config } from '../../config/env';
import { createCloudflareMailer } from './cloudflare';
import { createConsoleMailer } from './console';
import type { Mailer } from './mailer';

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
