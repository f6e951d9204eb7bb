import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { TRUE_HASHES } from '../../support/bindings.ts';
import { newcomer } from '../../support/client.ts';
import { startMailbox } from '../../support/mailbox.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { startScene } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene({ ...TRUE_HASHES, HASH_QUEUE_MAX: '3' });
  user = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const login = () => scene.call('POST', '/v1/auth/login', { body: { email: user.email, password: user.password } });

it('more logins than may wait: some get a 503 with Retry-After, and none is lost or waits for ever', async () => {
  const answers = await Promise.all(Array.from({ length: 12 }, login));
  const refused = answers.filter(({ status }) => status === 503);
  expect(refused.length).toBeGreaterThan(0);
  // The one that computes and those that may wait.
  expect(answers.filter(({ status }) => status === 200).length).toBe(12 - refused.length);
  expect(12 - refused.length).toBeGreaterThanOrEqual(4);
  for (const { headers, body } of refused) {
    expect(body.code).toBe('SERVICE_UNAVAILABLE');
    expect(Number(headers.get('Retry-After'))).toBeGreaterThanOrEqual(1);
    expect(Number(headers.get('Retry-After'))).toBeLessThanOrEqual(8);
  }
  expect((await login()).status).toBe(200);
});

describe('passwords that are known from breaches', () => {
  const LEAKED = 'spring flowers everywhere';
  const hash = createHash('sha1').update(LEAKED).digest('hex').toUpperCase();
  const asked: string[] = [];
  let state: 'here' | 'failing' | 'hanging' = 'here';
  const service = createServer((request, response) => {
    asked.push(`${request.url} ${JSON.stringify(request.headers)}`);
    if (state === 'hanging') return;
    const isIts = request.url === `/range/${hash.slice(0, 5)}`;
    response.writeHead(state === 'here' ? 200 : 500);
    response.end(isIts ? `${'0'.repeat(35)}:2\r\n${hash.slice(5)}:9` : `${'0'.repeat(35)}:2`);
  });
  let mailbox: Mailbox;
  let checked: Scene;

  beforeAll(async () => {
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
    const { port } = service.address() as AddressInfo;
    mailbox = await startMailbox();
    const settings = {
      BREACHED_PASSWORDS_URL: `http://127.0.0.1:${port}/range`,
      BREACHED_PASSWORDS_DEADLINE_MS: '500',
    };
    checked = await startScene(settings, mailbox);
  });
  afterAll(async () => {
    await checked[Symbol.asyncDispose]();
    await mailbox[Symbol.asyncDispose]();
    service.closeAllConnections();
    service.close();
  });

  /** The three ways to a new password. */
  async function setPassword(newPassword: string) {
    const [changing, resetting] = [await checked.newAccount(), await checked.newAccount()];
    const { email } = resetting;
    await mailbox.tokenFor(email);
    await checked.call('POST', '/v1/auth/recovery', { body: { email } });
    const token = await mailbox.tokenFor(email);
    const body = { currentPassword: changing.password, newPassword };
    return [
      await checked.call('POST', '/v1/auth/register', { body: { ...newcomer(), password: newPassword } }),
      await checked.call('POST', '/v1/auth/password', { token: changing.access, body }),
      await checked.call('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword } }),
    ];
  }
  const failures = () => checked.app.logs.filter((line) => line.includes('password.breach_lookup_failed'));

  it('are refused wherever one is set, and others are not', async () => {
    for (const [index, { status, body }] of (await setPassword(LEAKED)).entries()) {
      expect([status, body]).toMatchObject([
        422,
        {
          code: 'VALIDATION_FAILED',
          errors: [
            { pointer: index === 0 ? '/password' : '/newPassword', detail: expect.stringContaining('data breaches') },
          ],
        },
      ]);
    }
    expect((await setPassword('autumn flowers everywhere')).map(({ status }) => status)).toEqual([201, 200, 204]);
    expect(failures()).toEqual([]);
  });

  it('and the service gets five digits of a hash, of no account', async () => {
    expect(asked.length).toBeGreaterThan(0);
    for (const request of asked) {
      expect(request).toMatch(/^\/range\/[0-9A-F]{5} /);
      expect(request).not.toMatch(/@example|flowers|horse|Bearer|authorization|198\.51\.100/i);
    }
    const { email, password } = await checked.newAccount();
    const before = asked.length;
    expect((await checked.call('POST', '/v1/auth/login', { body: { email, password } })).status).toBe(200);
    expect(asked).toHaveLength(before);
  });

  it.each([
    ['failing', 'status'],
    ['hanging', 'timeout'],
  ] as const)('pass while the service is %s: logged, without the digits', async (how, reason) => {
    state = how;
    try {
      const before = failures().length;
      expect((await setPassword(LEAKED)).map(({ status }) => status)).toEqual([201, 200, 204]);
      // Two accounts are made for the test.
      expect(failures().length - before).toBe(5);
      for (const line of failures().slice(before)) {
        expect(JSON.parse(line)).toMatchObject({ level: 'warn', reason });
        expect(line).not.toContain(hash.slice(0, 5));
      }
    } finally {
      state = 'here';
    }
  });
});
