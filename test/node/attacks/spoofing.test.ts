import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { clientOf } from '../../support/client.ts';
import { expectQuietLogs, expectRefused, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';
import { request } from './wire.ts';

let scene: AttackScene;
let victim: Victim;
let url = '';
beforeAll(async () => {
  scene = await startAttack({ LIMIT_API: '5/15m', LIMIT_LOGIN: '3/15m' });
  ({ url } = scene.app);
  victim = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

/** The counters that exist; one for each identity that was counted. */
const counters = async (policy: string): Promise<string[]> =>
  ((await scene.redis.engine('KEYS', `app:ratelimit:${policy}:*`)) as string[]).toSorted();

async function forget(): Promise<void> {
  await scene.redis.idle();
  const keys = await counters('*');
  if (keys.length > 0) await scene.redis.engine('DEL', ...keys);
}
beforeEach(forget);

/** An anonymous request, counted by its address. */
const anonymous = (...headers: string[]) => request(url, 'GET /v1/users/me', headers);
/** The counters that a request of each of these headers leaves. Each is of a new client, as far as limits go. */
async function identities(lists: string[][]): Promise<string[]> {
  for (const headers of lists) expectRefused(await anonymous(...headers), 'AUTHENTICATION_REQUIRED', 'RATE_LIMITED');
  await scene.redis.idle();
  return counters('api');
}

const CLAIMS = ['198.51.100.7', '127.0.0.1', '10.0.0.1', '::1', '203.0.113.99, 203.0.113.7', 'unknown', '_hidden', ''];
const SPOOFED = [
  'X-Forwarded-For',
  'X-Real-IP',
  'Forwarded',
  'True-Client-IP',
  'X-Client-IP',
  'X-Cluster-Client-IP',
  'X-Forwarded',
  'Forwarded-For',
  'X-Originating-IP',
  'X-Remote-IP',
  'X-Remote-Addr',
  'Fastly-Client-IP',
  'Fly-Client-IP',
  'CF-Connecting-IPv6',
  'CF-Pseudo-IPv4',
  'X-CF-Connecting-IP',
  'CF_Connecting_IP',
  'Via',
];

test('the control: two addresses are two clients, and each has its limit', async () => {
  expect(await identities([['CF-Connecting-IP: 192.0.2.1'], ['CF-Connecting-IP: 192.0.2.2']])).toHaveLength(2);
  for (let sent = 0; sent < 4; sent += 1) await anonymous('CF-Connecting-IP: 192.0.2.1');
  const answer = await anonymous('CF-Connecting-IP: 192.0.2.1');
  expectRefused(answer, 'RATE_LIMITED');
  expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
  expectRefused(await anonymous('CF-Connecting-IP: 192.0.2.2'), 'AUTHENTICATION_REQUIRED');
});

test.each(SPOOFED)('%s does not change who the client is', async (header) => {
  const index = SPOOFED.indexOf(header) + 1;
  const own = `CF-Connecting-IP: 192.0.2.${100 + index}`;
  const value = (claim: string) => (header === 'Forwarded' ? `for="${claim}"` : claim);
  const tries = CLAIMS.flatMap((claim) => [
    [own, `${header}: ${value(claim)}`],
    [`${header}: ${value(claim)}`, own],
  ]);
  expect(await identities(tries)).toHaveLength(1);
  // Nor does any of them get past a limit that has been reached.
  for (const headers of tries) expectRefused(await anonymous(...headers), 'RATE_LIMITED');
});

test('all of them at once, on every credential route', async () => {
  const headers = (claim: string) => Object.fromEntries(SPOOFED.map((name) => [name, claim]));
  const call = clientOf(url, '192.0.2.200');
  const body = { email: 'nobody@example.com', password: 'wrong horse battery' };
  const codes: string[] = [];
  for (const claim of ['198.51.100.1', '198.51.100.2', '198.51.100.3', '198.51.100.4', '198.51.100.5']) {
    codes.push((await call('POST', '/v1/auth/login', { body, headers: headers(claim) })).body.code);
  }
  expect(codes).toEqual([...Array.from({ length: 3 }, () => 'INVALID_CREDENTIALS'), 'RATE_LIMITED', 'RATE_LIMITED']);
});

test('spellings of one account are one account', async () => {
  const call = clientOf(url, '192.0.2.201');
  const password = 'wrong horse battery';
  const { email } = victim;
  const raws = [
    JSON.stringify({ email, password }),
    JSON.stringify({ email: email.toUpperCase(), password }),
    JSON.stringify({ email: `  ${email}\t`, password }),
    // The last of two members counts, for the limit as for the login.
    `{"email":"other@example.com","password":"${password}","email":"${email}"}`,
    JSON.stringify({ password, email }).replaceAll('u', '\\u0075').replace('\\u0075', 'u'),
  ];
  const codes: string[] = [];
  for (const raw of raws) codes.push((await call('POST', '/v1/auth/login', { raw })).body.code);
  expect(codes).toEqual([...Array.from({ length: 3 }, () => 'INVALID_CREDENTIALS'), 'RATE_LIMITED', 'RATE_LIMITED']);
  expect(await counters('login')).toHaveLength(1);
  // The owner, elsewhere, is not locked out.
  expect(
    (await clientOf(url, '192.0.2.202')('POST', '/v1/auth/login', { body: { email, password: victim.password } }))
      .status,
  ).toBe(200);
});

describe('the address that Cloudflare reports', () => {
  const from = (addresses: string[]) => identities(addresses.map((address) => [`CF-Connecting-IP: ${address}`]));

  test('spellings of one IPv4 address are one client', async () => {
    const spellings = [
      '203.0.113.50',
      ' 203.0.113.50 ',
      '::ffff:203.0.113.50',
      '::FFFF:203.0.113.50',
      '::ffff:cb00:7132',
      '0:0:0:0:0:ffff:cb00:7132',
      '0000:0000:0000:0000:0000:ffff:203.0.113.50',
      '::ffff:203.0.113.50%eth0',
    ];
    expect(await from(spellings)).toHaveLength(1);
  });

  test('addresses of one IPv6 network are one client, in every spelling', async () => {
    const spellings = [
      '2001:db8:1:2::1',
      '2001:DB8:1:2::1',
      '2001:0db8:0001:0002:0000:0000:0000:0001',
      '2001:db8:1:2:ffff:ffff:ffff:ffff',
      '2001:db8:1:2::',
      '2001:db8:1:2::203.0.113.9',
      '2001:db8:1:2::1%eth0',
      '2001:db8:1:2:a::b%25en1',
    ];
    expect(await from(spellings)).toHaveLength(1);
  });

  test('other networks are other clients', async () => {
    expect(await from(['2001:db8:1:4::1', '2001:db8:1:5::1', '2001:db8:2:4::1', '::1', '203.0.113.51'])).toHaveLength(
      5,
    );
  });

  test('IPv4 clients behind one NAT64, translator or relay are different clients', async () => {
    const hosts = ['cb00:7146', 'cb00:7147', 'cb00:7148'];
    for (const prefix of ['64:ff9b::', '64:ff9b:1::', '::', '::ffff:0:']) {
      await forget();
      expect(await from(hosts.map((host) => `${prefix}${host}`))).toHaveLength(3);
    }
    await forget();
    expect(await from(['2001:0:53aa:64c:0:1:34ff:8eb9', '2001:0:53aa:64c:0:1:34ff:8eb8'])).toHaveLength(2);
  });

  test('one IPv4 client gets no second identity by a tunnel, or by the networks that a tunnel gives it', async () => {
    const spellings = ['203.0.113.70', '64:ff9b::203.0.113.70', '64:FF9B:0::cb00:7146', '::203.0.113.70'];
    const networks = Array.from({ length: 20 }, (_, index) => `2002:cb00:7146:${index.toString(16)}::1`);
    expect(await from([...spellings, '::ffff:0:cb00:7146', '2001:0:1:2:3:4:34ff:8eb9', ...networks])).toHaveLength(1);
  });

  test('text that is no address is none, and shares the one counter of those that have none', async () => {
    const texts = ['1.2.3.4:80', '5.6.7.8:80', 'gggg::1', 'gggg:1::1', '[2001:db8::1]', '[2001:db8:1::1]:443', '1.2.3'];
    const more = ['2001:db8::/64', '1:2:3:4:5:6:7:8:9', '::1.2.3.400', '0x7f.0.0.1', '010.0.0.1', '2130706433'];
    expect(await identities([...texts, ...more].map((text) => [`CF-Connecting-IP: ${text}`]))).toHaveLength(1);
    // None of them spends what a real network has. One that no other test uses: the isolate remembers those.
    const answer = await anonymous('CF-Connecting-IP: 2001:db8:99::1');
    expect(answer.headers.get('RateLimit')).toMatch(/r=4;/);
  });

  test('the owner’s history has no text that is no address', async () => {
    const addresses = ['<script>alert(1)</script>', '1.2.3.4:80', '2001:DB8:0:0::7', '::ffff:203.0.113.71'];
    for (const address of addresses) {
      const body = { email: victim.email, password: victim.password, device: address };
      expect((await clientOf(url, address)('POST', '/v1/auth/login', { body })).status).toBe(200);
    }
    const rows = await scene.app.sql('SELECT device, address FROM sessions WHERE user_id = ?', victim.id);
    const seen = addresses.map((device) => rows.find((row) => row['device'] === device)?.['address']);
    expect(seen).toEqual(['unknown', 'unknown', '2001:db8::7', '203.0.113.71']);
  });

  test('no address at all is one client', async () => {
    expect(
      await identities([[], ['CF-Connecting-IP:'], ['CF-Connecting-IP:   '], ['X-Forwarded-For: 1.2.3.4']]),
    ).toHaveLength(1);
  });

  test('rubbish is refused or counted, never an error, and never takes from another', async () => {
    const victimAddress = '203.0.113.60';
    const rubbish = [
      `${victimAddress}, 198.51.100.1`,
      `198.51.100.1, ${victimAddress}`,
      ':',
      '::',
      ':::',
      '1::2::3',
      'g::h',
      '1:2:3:4:5:6:7:8:9:10',
      '99999:88888::',
      '::ffff:999.999.999.999',
      '[::1]:443',
      '%',
      '::%',
      "' OR 1=1 --",
      '*',
      '}:{',
      '${jndi:ldap://x}',
      '\x80\xff',
      'A'.repeat(10_000),
      ':'.repeat(10_000),
      `${'1:'.repeat(5_000)}1`,
    ];
    for (const text of rubbish) {
      expectRefused(await anonymous(`CF-Connecting-IP: ${text}`), 'AUTHENTICATION_REQUIRED', 'RATE_LIMITED');
    }
    expectRefused(
      await anonymous(`CF-Connecting-IP: ${victimAddress}`, 'CF-Connecting-IP: 198.51.100.1'),
      'AUTHENTICATION_REQUIRED',
      'RATE_LIMITED',
    );
    const answer = await anonymous(`CF-Connecting-IP: ${victimAddress}`);
    expectRefused(answer, 'AUTHENTICATION_REQUIRED');
    expect(answer.headers.get('RateLimit')).toMatch(/r=4;/);
    for (const key of await counters('api')) expect(key).toMatch(/^app:ratelimit:api:\{[\w-]{22}\}$/);
  });
});

test('a token makes a client its user, wherever it comes from', async () => {
  const token = `Authorization: Bearer ${victim.access}`;
  const statuses: number[] = [];
  for (let index = 0; index < 7; index += 1) {
    statuses.push(
      (await anonymous(`CF-Connecting-IP: 198.51.100.${index}`, token, `X-Forwarded-For: 10.0.0.${index}`)).status,
    );
  }
  expect(statuses).toEqual([200, 200, 200, 200, 200, 429, 429]);
  expect(await counters('api')).toHaveLength(1);
  // A request with a bad token has no user: it is counted by address, and the user's own limit is left alone.
  await anonymous('CF-Connecting-IP: 198.51.100.250', `${token}x`);
  expect(await counters('api')).toHaveLength(2);
});

test('the logs say nothing', () => expectQuietLogs(scene, victim.access));
