import { createHmac, randomBytes } from 'node:crypto';

import { looseBits } from './forge.ts';

/** A key of `REFRESH_KEYS`. */
export const refreshKey = (kid: string, state: string) => ({
  kty: 'oct',
  k: randomBytes(32).toString('base64url'),
  kid,
  alg: 'HS256',
  state,
});

/** `grt1.<kid>.<user>.<random>.<generation>.<epoch>.<expiry>.<mac>` */
const PARTS = ['form', 'kid', 'user', 'random', 'generation', 'epoch', 'expiry', 'mac'] as const;
type Part = (typeof PARTS)[number];

export function changed(token: string, change: Partial<Record<Part, (text: string) => string>>): string {
  return token
    .split('.')
    .map((text, index) => change[PARTS[index] ?? 'form']?.(text) ?? text)
    .join('.');
}

/** What the Worker would mint, with this secret. */
export function minted(secret: string | Buffer, token: string, change: Parameters<typeof changed>[1] = {}): string {
  const body = changed(token, change).split('.').slice(0, -1).join('.');
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

export const add = (more: number) => (text: string) => (Number.parseInt(text, 36) + more).toString(36);
const flip = (text: string, at: number) => text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
const swapCase = (text: string) =>
  text.replaceAll(/[a-z]/gi, (char) => (char === char.toLowerCase() ? char.toUpperCase() : char.toLowerCase()));

/**
 * Every form that is no token, by name.
 *
 * @param foreign a good token of another user
 * @param retired the secret of the key `r-retired`
 */
export function tamperings(token: string, foreign: string, retired: Buffer): [string, string][] {
  const part = (given: string, name: Part) => given.split('.')[PARTS.indexOf(name)] ?? '';
  return [
    ...Array.from({ length: token.length }, (_, at): [string, string] => [`character ${at} changed`, flip(token, at)]),
    ...Array.from({ length: 43 }, (_, cut): [string, string] => [
      `${cut + 1} characters short`,
      token.slice(0, -cut - 1),
    ]),
    ...[1, 2, 3, 35, 1e6].map((more): [string, string] => [
      `generation + ${more}`,
      changed(token, { generation: add(more) }),
    ]),
    ['generation zero', changed(token, { generation: () => '0' })],
    ['generation negative', changed(token, { generation: () => '-1' })],
    ['generation with a zero before it', changed(token, { generation: (text) => `0${text}` })],
    ['generation beyond exact numbers', changed(token, { generation: () => 'zzzzzzzzzzz' })],
    ['epoch + 1', changed(token, { epoch: add(1) })],
    ['epoch zero', changed(token, { epoch: () => '0' })],
    ['a later expiry', changed(token, { expiry: add(86_400_000) })],
    ['an endless expiry', changed(token, { expiry: () => 'zzzzzzzzzzz' })],
    ['an earlier expiry', changed(token, { expiry: add(-1) })],
    ['another session of the victim', changed(token, { random: () => randomBytes(16).toString('base64url') })],
    ['a session of the attacker', changed(token, { random: () => part(foreign, 'random') })],
    ['another user', changed(token, { user: () => part(foreign, 'user') })],
    ['the victim in a token of the attacker', changed(foreign, { user: () => part(token, 'user') })],
    [
      'the victim and their session in a token of the attacker',
      changed(foreign, { user: () => part(token, 'user'), random: () => part(token, 'random') }),
    ],
    ["the attacker's MAC", changed(token, { mac: () => part(foreign, 'mac') })],
    ['a retired kid', changed(token, { kid: () => 'r-retired' })],
    ['the next kid', changed(token, { kid: () => 'r-next' })],
    ['an unknown kid', changed(token, { kid: () => 'r-none' })],
    ['a prototype as kid', changed(token, { kid: () => '__proto__' })],
    ['the empty kid', changed(token, { kid: () => '' })],
    ['another form', changed(token, { form: () => 'grt2' })],
    ['no form', token.slice(5)],
    ['minted with the empty secret', minted('', token)],
    ['minted with the kid as secret', minted('r-active', token)],
    ['minted with the text of a secret', minted(retired.toString('base64url'), token)],
    ['minted with the retired secret under the active kid', minted(retired, token)],
    ['an empty MAC', changed(token, { mac: () => '' })],
    ['a MAC of zeroes', changed(token, { mac: () => 'A'.repeat(43) })],
    ['a MAC in hexadecimal', changed(token, { mac: (text) => Buffer.from(text, 'base64url').toString('hex') })],
    ['a MAC in ordinary base64', changed(token, { mac: (text) => Buffer.from(text, 'base64url').toString('base64') })],
    ['a MAC with loose bits', looseBits(token)],
    ['a MAC in the other case', changed(token, { mac: swapCase })],
    ['all in the other case', swapCase(token)],
    ['upper case numbers', changed(token, { expiry: (text) => text.toUpperCase() })],
    ['the session in the other case', changed(token, { random: swapCase })],
    ...[
      '\n',
      '\r\n',
      ' ',
      '\t',
      '\0',
      '=',
      '==',
      '.',
      'A',
      '.A',
      '%00',
      '\u200b',
      '\ufeff',
      '/../',
      ';x',
      ',',
      '"',
    ].flatMap((text): [string, string][] => [
      [`${JSON.stringify(text)} after it`, `${token}${text}`],
      [`${JSON.stringify(text)} before it`, `${text}${token}`],
      [`${JSON.stringify(text)} within it`, `${token.slice(0, 40)}${text}${token.slice(40)}`],
    ]),
    ['full-width digits', changed(token, { generation: () => '\uff11' })],
    ['Cyrillic letters', token.replace('grt1', 'g\u0433t1')],
    ['percent-encoded', token.replaceAll('.', '%2e')],
    ['doubled', `${token}${token}`],
    ['two, with a comma', `${token},${token}`],
    ['as a bearer header', `Bearer ${token}`],
    ['in quotes', JSON.stringify(token)],
  ];
}
