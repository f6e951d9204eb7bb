import type { Config } from '../../config/env';
import type { Mail } from './mailer';

type Settings = Config['mail'];

/**
 * The texts. Nothing that somebody else may have typed stands in them, such as the account's name: whoever registers a
 * stranger's address must not be able to write to them.
 */
export function recoveryMail(to: string, token: string, settings: Settings): Mail {
  const { appName, recoveryUrl, recoveryTtlSeconds } = settings;
  return {
    to,
    subject: `Reset your ${appName} password`,
    ...body({
      before: `Somebody asked to reset the password of your ${appName} account.`,
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
      after: 'If you know nothing of it, ignore this mail.',
      url: verificationUrl,
      token,
      ttlSeconds: verificationTtlSeconds,
    }),
  };
}

interface Body {
  before: string;
  ask: { link: string; code: string };
  action: string;
  after: string;
  /** With `{token}` where the token goes; without one, the token itself is what the reader is given. */
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

/** Rounded down: whoever comes within it is not late. */
function duration(seconds: number): string {
  for (const [unit, length] of [
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
