import type { Config } from '../../config/env';
import type { Mail } from './mailer';

type Settings = Config['mail'];

/**
 * The texts of mails. They contain no text from clients, such as the account's name: otherwise a person could register a
 * stranger's address and so write to that stranger.
 */
export function recoveryMail(to: string, token: string, settings: Settings): Mail {
  const { appName, recoveryUrl, recoveryTtlSeconds } = settings;
  return {
    to,
    subject: `Reset your ${appName} password`,
    ...body({
      before: `A password reset was requested for your ${appName} account.`,
      ask: { link: 'To choose a new one, open this link', code: 'To choose a new one, enter this code in the app' },
      action: 'Choose a new password',
      after: 'If it was not you, ignore this mail: your password stays as it is.',
      url: recoveryUrl,
      token,
      ttlSeconds: recoveryTtlSeconds,
    }),
  };
}

export function verificationMail(to: string, token: string, settings: Settings): Mail {
  const { appName, verificationUrl, verificationTtlSeconds } = settings;
  return {
    to,
    subject: `Confirm your e-mail address for ${appName}`,
    ...body({
      before: `A ${appName} account was registered with this address.`,
      ask: {
        link: 'To confirm that it is yours, open this link',
        code: 'To confirm that it is yours, enter this code',
      },
      action: 'Confirm the address',
      after: 'If you did not register, ignore this mail.',
      url: verificationUrl,
      token,
      ttlSeconds: verificationTtlSeconds,
    }),
  };
}

/** To the new address: only a person who can read its mail can confirm it. */
export function emailChangeMail(to: string, token: string, settings: Settings): Mail {
  const { appName, emailChangeUrl, emailChangeTtlSeconds } = settings;
  return {
    to,
    subject: `Confirm your new e-mail address for ${appName}`,
    ...body({
      before: `A change of a ${appName} account to this address was requested.`,
      ask: { link: 'If it is yours, open this link', code: 'If it is yours, enter this code in the app' },
      action: 'Use this address',
      after: 'If you did not ask for this, ignore this mail: nothing changes.',
      url: emailChangeUrl,
      token,
      ttlSeconds: emailChangeTtlSeconds,
    }),
  };
}

/** To the former address, after the change. */
export function emailChangedMail(to: string, token: string, settings: Settings): Mail {
  const { appName, emailUndoUrl, emailUndoTtlSeconds } = settings;
  return {
    to,
    subject: `The e-mail address of your ${appName} account was changed`,
    ...body({
      before: `Your ${appName} account has another e-mail address now; mails will go there. If it was not you, your account is in danger.`,
      ask: { link: 'To undo the change, open this link', code: 'To undo the change, enter this code in the app' },
      action: 'Undo the change',
      after:
        'Undoing it signs out all devices and sends you a mail to set a new password. If it was you, ignore this mail.',
      url: emailUndoUrl,
      token,
      ttlSeconds: emailUndoTtlSeconds,
    }),
  };
}

/** To the owner's address. Opening the link does not delete the account yet. */
export function deletionMail(to: string, token: string, settings: Settings): Mail {
  const { appName, deletionUrl, deletionTtlSeconds } = settings;
  return {
    to,
    subject: `Delete your ${appName} account`,
    ...body({
      before: `A request to delete your ${appName} account has come in.`,
      ask: {
        link: 'To delete it with everything that is stored of it, open this link',
        code: 'To delete it with everything that is stored of it, enter this code where you asked for it',
      },
      action: 'Delete the account',
      after: 'This cannot be undone. If it was not you, ignore this mail: your account stays.',
      url: deletionUrl,
      token,
      ttlSeconds: deletionTtlSeconds,
    }),
  };
}

interface Body {
  before: string;
  ask: { link: string; code: string };
  action: string;
  after: string;
  /** The link, with `{token}` in place of the token. If undefined, the mail contains only the token. */
  url: string | undefined;
  token: string;
  ttlSeconds: number;
}

function body({ before, ask, action, after, url, token, ttlSeconds }: Body): Pick<Mail, 'text' | 'html'> {
  const link = url?.replace('{token}', token);
  const what = `${link === undefined ? ask.code : ask.link} within ${duration(ttlSeconds)}:`;
  const shown =
    link === undefined ? `<code>${escaped(token)}</code>` : `<a href="${escaped(link)}">${escaped(action)}</a>`;
  const paragraphs = [`${escaped(before)} ${escaped(what)}`, shown, escaped(after)];
  return {
    text: `${before} ${what}\n\n${link ?? token}\n\n${after}\n`,
    html: paragraphs.map((paragraph) => `<p>${paragraph}</p>`).join('\n'),
  };
}

/** Rounded down, so that a reader who acts within the stated time is never too late. */
function duration(seconds: number): string {
  for (const [unit, length] of [
    ['day', 86_400],
    ['hour', 3_600],
    ['minute', 60],
  ] as const) {
    const count = Math.floor(seconds / length);
    if (count > 1) return `${count} ${unit}s`;
  }
  return `${seconds} seconds`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
