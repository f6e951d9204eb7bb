import { createHash } from 'node:crypto';
import { expect, onTestFinished, test, vi } from 'vitest';

import { createInstruments } from '../../../../src/metrics/instruments';
import { createBreachLookup } from '../../../../src/services/password/breaches';

const URL_BASE = 'https://breaches.test/range/';
const PASSWORD = 'correct horse battery';
const hashOf = (password: string) => createHash('sha1').update(password).digest('hex').toUpperCase();
const suffix = hashOf(PASSWORD).slice(5);
const OTHER = '0018A45C4D1DEF81644B54AB7F969B88D65:3';

/** A lookup at a service that sends this, what it was asked, and what was logged and counted. */
function lookup(respond: (request: Request) => Response | Promise<Response>, deadlineMs = 1_000) {
  const asked: Request[] = [];
  const lines: string[] = [];
  const spy = vi.spyOn(console, 'warn').mockImplementation((line: string) => void lines.push(line));
  onTestFinished(() => spy.mockRestore());
  const instruments = createInstruments();
  const counted: string[] = [];
  vi.spyOn(instruments.breachLookups, 'count').mockImplementation((outcome) => void counted.push(String(outcome)));
  const isBreached = createBreachLookup({
    settings: { url: URL_BASE, deadlineMs },
    instruments,
    fetch: async (input, init) => {
      const request = new Request(input, init);
      asked.push(request);
      return respond(request);
    },
  });
  return { isBreached, asked, lines, counted };
}

const range = (...lines: string[]) => new Response(lines.join('\r\n'));

test('five digits of the hash are sent, with padding asked for, and nothing else of the password', async () => {
  const { isBreached, asked, counted, lines } = lookup(() => range(OTHER, `${suffix}:42`));
  expect(await isBreached(PASSWORD)).toBe(true);
  expect(asked.map(({ url }) => url)).toEqual([`${URL_BASE}${hashOf(PASSWORD).slice(0, 5)}`]);
  const [request] = asked;
  expect(request?.method).toBe('GET');
  expect(request?.headers.get('Add-Padding')).toBe('true');
  expect([...(request?.headers.keys() ?? [])].toSorted()).toEqual(['accept', 'add-padding', 'user-agent']);
  expect([counted, lines]).toEqual([['found'], []]);
});

test.each<[string, string[], boolean]>([
  ['listed in lower case', [`${suffix.toLowerCase()}:1`], true],
  ['not listed', [OTHER], false],
  // Padding of Have I Been Pwned has a count of 0.
  ['listed as padding', [OTHER, `${suffix}:0`], false],
])('%s', async (_, lines, isFound) => {
  const { isBreached, counted } = lookup(() => range(...lines));
  expect(await isBreached(PASSWORD)).toBe(isFound);
  expect(counted).toEqual([isFound ? 'found' : 'absent']);
});

test('it counts in NFC, as the stored password does', async () => {
  const { isBreached, asked } = lookup(() => range(OTHER));
  for (const password of ['caf\u00e9 au lait', 'cafe\u0301 au lait']) await isBreached(password);
  expect(asked[0]?.url).toBe(asked[1]?.url);
});

const never = new Promise<never>(() => undefined);
const endless = () =>
  new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536).fill(65)) }));
const stuck = () => new Response(new ReadableStream({ pull: () => never }));

test.each<[string, (request: Request) => Response | Promise<Response>]>([
  ['status', () => new Response('Too many requests', { status: 429 })],
  ['status', () => new Response(null, { status: 302, headers: { Location: 'https://evil.test/' } })],
  ['status', () => new Response(`${suffix}:1`, { status: 503 })],
  ['format', () => range('<html>Sign in to the Wi-Fi</html>')],
  ['format', () => range('')],
  ['format', () => range(`${suffix}:1`, 'and more')],
  ['network', () => Promise.reject(new TypeError(`cannot reach ${URL_BASE}`))],
  ['too-large', endless],
])(
  'a service that fails (%s) lets the password pass: logged and counted, without the digits',
  async (reason, respond) => {
    const { isBreached, counted, lines } = lookup(respond);
    expect(await isBreached(PASSWORD)).toBe(false);
    expect(counted).toEqual(['failed']);
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ event: 'password.breach_lookup_failed', reason });
    expect(lines.join()).not.toMatch(new RegExp(`${hashOf(PASSWORD).slice(0, 5)}|horse|breaches\\.test`, 'i'));
  },
);

test.each<[string, (request: Request) => Response | Promise<Response>]>([
  [
    'before its headers',
    ({ signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
  ],
  ['within its body', stuck],
])('one that hangs %s is given up at the deadline', async (_, respond) => {
  const { isBreached, counted, lines } = lookup(respond, 50);
  expect(await isBreached(PASSWORD)).toBe(false);
  expect(counted).toEqual(['failed']);
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ reason: 'timeout' });
});

test('without the setting nothing is asked', async () => {
  const fetch = vi.fn<typeof globalThis.fetch>();
  const isBreached = createBreachLookup({ settings: { url: undefined, deadlineMs: 50 }, fetch });
  expect(await isBreached('password')).toBe(false);
  expect(fetch).not.toHaveBeenCalled();
});
