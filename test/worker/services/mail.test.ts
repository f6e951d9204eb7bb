import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { configOf } from '../../../src/config/env';
import { createMailService } from '../../../src/services/mail.service';
import { createCloudflareMailer } from '../../../src/services/mail/cloudflare';
import { createMailer } from '../../../src/services/mail/createMailer';
import { recoveryMail, verificationMail } from '../../../src/services/mail/messages';
import { newOneTimeToken } from '../../../src/services/oneTime/token';
import { bindings } from '../support/request';

const FROM = { email: 'hello@example.net', name: 'App' };
const MAIL = { to: 'ada@example.com', subject: 'Hello', text: 'secret text' };

let lines: Record<string, unknown>[] = [];
beforeEach(() => {
  lines = [];
  for (const level of ['info', 'warn', 'error'] as const) {
    vi.spyOn(console, level).mockImplementation((line: string) => void lines.push(JSON.parse(line)));
  }
});
afterEach(() => vi.restoreAllMocks());

/** A service with a binding that has one given outcome for each attempt, and the waits between them. */
function serviceOf(...attempts: (() => Promise<unknown>)[]) {
  const sent: unknown[] = [];
  const waits: number[] = [];
  const degraded: string[] = [];
  const binding = {
    async send(mail: unknown) {
      sent.push(mail);
      await attempts[sent.length - 1]?.();
      return { messageId: '<1@example.net>' };
    },
  };
  const mail = createMailService({
    mailer: createCloudflareMailer(binding, FROM),
    degraded: (what) => void degraded.push(what),
    wait: async (ms) => void waits.push(ms),
    attemptMs: 50,
  });
  return { mail, sent, waits, degraded };
}

const fail = (code?: string) => async () => {
  throw Object.assign(new Error(`to ${MAIL.to}: no`), code !== undefined && { code });
};
const hang = () => new Promise<never>(() => {});

describe('sending', () => {
  test('gives the platform fields, not a text that a field could add a header to', async () => {
    const { mail, sent } = serviceOf();
    expect(await mail.send('recovery', { ...MAIL, html: '<p>secret</p>' })).toBe(true);
    expect(sent).toEqual([{ from: FROM, ...MAIL, html: '<p>secret</p>' }]);
    expect(lines).toEqual([{ level: 'info', event: 'mail.sent', kind: 'recovery' }]);
  });

  test('is tried again after a failure that may pass, and after none that does not', async () => {
    const passing = serviceOf(fail('E_RATE_LIMIT_EXCEEDED'), fail());
    expect(await passing.mail.send('recovery', MAIL)).toBe(true);
    expect(passing.sent).toHaveLength(3);
    expect(passing.waits).toEqual([1_000, 4_000]);

    for (const code of ['E_RECIPIENT_SUPPRESSED', 'E_SENDER_NOT_VERIFIED', 'E_VALIDATION_ERROR']) {
      const lasting = serviceOf(fail(code));
      expect(await lasting.mail.send('recovery', MAIL)).toBe(false);
      expect(lasting.sent).toHaveLength(1);
    }
  });

  test('ends, whatever the platform does, and is then logged and counted, without address or text', async () => {
    const { mail, sent, degraded } = serviceOf(hang, fail(), hang);
    expect(await mail.send('recovery', MAIL)).toBe(false);
    expect(sent).toHaveLength(3);
    expect(degraded).toEqual(['mail=failed']);
    expect(lines).toEqual([
      { level: 'error', event: 'mail.failed', kind: 'recovery', final: false, error: 'MailTimeout' },
    ]);
  });

  test('without a mailer nothing is sent', async () => {
    const none = createMailService({ mailer: undefined, degraded: () => {} });
    expect(none.enabled).toBe(false);
    expect(() => none.assertEnabled()).toThrow('set MAILER');
    expect(await none.send('recovery', MAIL)).toBe(false);
  });
});

test('the console mailer shows the mail', async () => {
  const shown = vi.spyOn(console, 'log').mockReturnValue();
  const { mail } = configOf(bindings({ MAILER: 'console' }));
  await createMailer(mail)?.send(MAIL);
  expect(shown.mock.calls).toEqual([
    [expect.stringMatching(/mail to ada@example\.com ──\nSubject: Hello\n\nsecret text/)],
  ]);
});

describe('messages', () => {
  const settings = configOf(bindings({ APP_NAME: 'A <b> & "Co"', RECOVERY_TTL_SECONDS: '5400' })).mail;
  const token = newOneTimeToken('recovery');

  test('without a link they show the token, and how long it is good', () => {
    const { subject, text, html } = recoveryMail('ada@example.com', token, settings);
    expect(subject).toBe('Reset your A <b> & "Co" password');
    expect(text).toContain(`enter this code in the app within 90 minutes:\n\n${token}\n\n`);
    expect(html).toContain(`<code>${token}</code>`);
    expect(html).toContain('A &lt;b&gt; &amp; &quot;Co&quot; account');
    expect(html).not.toContain('<b>');
    expect(verificationMail('ada@example.com', token, settings).text).toContain('within 24 hours:');
  });

  test('with one they link to where the settings say, be it a deep link', () => {
    const verificationUrl = 'myapp://verify?a=1&token={token}';
    const { text, html } = verificationMail('ada@example.com', token, { ...settings, verificationUrl });
    expect(text).toContain(`\n\nmyapp://verify?a=1&token=${token}\n\n`);
    expect(html).toContain(`<a href="myapp://verify?a=1&amp;token=${token}">`);
  });
});

test('tokens are recognisable, random, and end in a letter or digit', () => {
  const made = Array.from({ length: 500 }, () => newOneTimeToken('verification'));
  expect(new Set(made).size).toBe(500);
  for (const token of made) expect(token).toMatch(/^gotv1\.[\w-]{42}[A-Za-z0-9]$/);
});
