import { createHash, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { b64, claimsLike, claimsOf, forge, forgeHmac, headerOf, newKey, signatureOf, signingKeys } from './forge.ts';
import type { Alg, Claims, Key } from './forge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';
import { P256_ORDER, bytes32, inDer, mirrored, unreduced } from './signatures.ts';

/** An attacker's server, which serves the attacker's key set to any client. */
let trap: Server;
let trapUrl = '';
let trapped = 0;

beforeAll(async () => {
  trap = createServer((_, response) => {
    trapped += 1;
    response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ keys: [published(newKey('evil'))] }));
  });
  await new Promise<void>((resolve) => void trap.listen(0, '127.0.0.1', resolve));
  trapUrl = `http://127.0.0.1:${(trap.address() as AddressInfo).port}/jwks.json`;
});
afterAll(() => trap.close());

const published = ({ publicKey, kid, alg }: Key) => ({
  ...publicKey.export({ format: 'jwk' }),
  kid,
  alg: alg === 'Ed25519' ? 'EdDSA' : alg,
  use: 'sig',
});

/** Every spelling of the public key set, as a secret. */
function publicSecrets(key: Key): Record<string, string | Buffer> {
  const pem = key.publicKey.export({ format: 'pem', type: 'spki' }) as string;
  const jwk = key.publicKey.export({ format: 'jwk' });
  return {
    'PEM as secret': pem,
    'PEM without its last newline': pem.trimEnd(),
    'DER as secret': key.publicKey.export({ format: 'der', type: 'spki' }),
    'JWK as secret': JSON.stringify(jwk),
    'published JWK as secret': JSON.stringify(published(key)),
    'raw bytes of x as secret': Buffer.from(String(jwk.x), 'base64url'),
    'text of x as secret': String(jwk.x),
    'thumbprint as secret': createHash('sha256').update(JSON.stringify(jwk)).digest(),
    'kid as secret': key.kid,
    'the empty secret': '',
    'a zero byte as secret': Buffer.alloc(1),
  };
}

describe.each<Alg>(['Ed25519', 'ES256'])('with %s keys', (alg) => {
  const own = {
    active: newKey('key-active', alg),
    next: newKey('key-next', alg),
    retired: newKey('key-retired', alg),
  };
  const { active } = own;
  const dropped = newKey('key-dropped', alg);
  const evil = newKey('evil', alg);
  const sameKid = { ...evil, kid: active.kid };

  let scene: AttackScene;
  let victim: Victim;
  beforeAll(async () => {
    scene = await startAttack({ SIGNING_KEYS: signingKeys(own) });
    victim = await scene.newAccount();
  });
  afterAll(() => scene[Symbol.asyncDispose]());

  const other: Alg = alg === 'ES256' ? 'Ed25519' : 'ES256';
  /** Head and payload as they should be, and this in place of the signature. */
  const unsigned = (payload: Claims, signature: string | Buffer, header: Claims = {}) =>
    `${b64({ ...headerOf(active), ...header })}.${b64(payload)}.${typeof signature === 'string' ? signature : b64(signature)}`;
  const withSignature = (payload: Claims, change: (signature: Buffer) => Buffer) => {
    const input = `${b64(headerOf(active))}.${b64(payload)}`;
    return `${input}.${b64(change(signatureOf(active, input)))}`;
  };

  type Forgery = (claims: Claims) => string;
  const asAlg = (name: string): Record<string, Forgery> => ({
    [`alg ${name}, no signature`]: (claims) => unsigned(claims, '', { alg: name }),
    [`alg ${name}, some signature`]: (claims) => unsigned(claims, Buffer.alloc(64, 7), { alg: name }),
    [`alg ${name}, the genuine signature of another token`]: () => {
      const signature = victim.access.split('.')[2] ?? '';
      return unsigned(claimsLike(victim.access), signature, { alg: name });
    },
  });

  const forgeries: Record<string, Forgery> = {
    ...Object.assign({}, ...['none', 'None', 'NONE', 'nOnE', 'none ', ''].map(asAlg)),
    'no alg': (claims) => forge(active, claims, { alg: undefined }),
    'alg as a list': (claims) => forge(active, claims, { alg: [alg] }),
    'alg in other letters': (claims) => forge(active, claims, { alg: alg.toLowerCase() }),
    // EdDSA is another name of Ed25519, and is accepted with its keys.
    ...(alg === 'ES256' && { 'alg EdDSA': (claims: Claims) => forge(active, claims, { alg: 'EdDSA' }) }),
    'alg of the other kind of key': (claims) => forge(active, claims, { alg: other }),
    'alg RS256': (claims) => forge(active, claims, { alg: 'RS256' }),
    'alg ES256K': (claims) => forge(active, claims, { alg: 'ES256K' }),
    'alg twice, none first': (claims) =>
      unsigned(claims, '').replace(/^[^.]+/, b64(`{"alg":"none","alg":"${alg}","typ":"at+jwt","kid":"${active.kid}"}`)),
    'alg twice, none last': (claims) =>
      forge(active, claims, `{"alg":"${alg}","typ":"at+jwt","kid":"${active.kid}","alg":"none"}`),
    'a key of the other kind': (claims) => forge({ ...newKey(active.kid, other) }, claims),

    'a stripped signature': (claims) => forge(active, claims).replace(/[^.]+$/, ''),
    'a stripped signature and its dot': (claims) => forge(active, claims).replace(/\.[^.]+$/, ''),
    'a fourth part': (claims) => `${forge(active, claims)}.AAAA`,
    'the genuine signature, other claims': (claims) => {
      const [header, , signature] = victim.access.split('.');
      return `${header}.${b64({ ...claims, role: 'admin' })}.${signature}`;
    },
    'the genuine signature, another header': (claims) => {
      const [, payload, signature] = forge(active, claims).split('.');
      return `${b64({ ...headerOf(active), x: 1 })}.${payload}.${signature}`;
    },
    'all zeroes as signature': (claims) => unsigned(claims, Buffer.alloc(64)),
    'all ones as signature': (claims) => unsigned(claims, Buffer.alloc(64, 255)),
    'r and s of one': (claims) => unsigned(claims, Buffer.concat([bytes32(1n), bytes32(1n)])),
    'the identity as R': (claims) => unsigned(claims, Buffer.concat([Buffer.from([1]), Buffer.alloc(63)])),
    'the order as r and s': (claims) => unsigned(claims, Buffer.concat([bytes32(P256_ORDER), bytes32(P256_ORDER)])),
    'half a signature': (claims) => withSignature(claims, (signature) => signature.subarray(0, 32)),
    'a signature without its last byte': (claims) => withSignature(claims, (signature) => signature.subarray(0, 63)),
    'a signature with a byte more': (claims) =>
      withSignature(claims, (signature) => Buffer.concat([signature, Buffer.alloc(1)])),
    'a signature with its halves swapped': (claims) =>
      withSignature(claims, (signature) => Buffer.concat([signature.subarray(32), signature.subarray(0, 32)])),
    'a signature in DER': (claims) => withSignature(claims, inDer),
    'a signature with one bit changed': (claims) =>
      withSignature(claims, (signature) => Buffer.from(signature.map((byte, at) => (at === 20 ? byte ^ 4 : byte)))),
    ...(alg === 'Ed25519' && {
      'S beyond the order of the group': (claims: Claims) => unreduced(forge(active, claims)),
    }),

    "an attacker's key": (claims) => forge(evil, claims),
    "an attacker's key under the active kid": (claims) => forge(sameKid, claims),
    "an attacker's key under the next kid": (claims) => forge({ ...evil, kid: own.next.kid }, claims),
    "an attacker's key under the retired kid": (claims) => forge({ ...evil, kid: own.retired.kid }, claims),
    'the next key under the active kid': (claims) => forge({ ...own.next, kid: active.kid }, claims),
    'the retired key under the active kid': (claims) => forge({ ...own.retired, kid: active.kid }, claims),
    'a key that was dropped': (claims) => forge(dropped, claims),

    ...Object.fromEntries(
      [evil, sameKid].flatMap((key): [string, Forgery][] => {
        const under = key === evil ? 'under its own kid' : 'under the active kid';
        const jwk = published(key);
        const der = key.publicKey.export({ format: 'der', type: 'spki' }).toString('base64');
        return [
          [`an embedded jwk ${under}`, (claims) => forge(key, claims, { jwk })],
          [`an embedded jwk ${under}, no kid`, (claims) => forge(key, claims, { jwk, kid: undefined })],
          [
            `an embedded private jwk ${under}`,
            (claims) => forge(key, claims, { jwk: key.privateKey.export({ format: 'jwk' }) }),
          ],
          [`a jku ${under}`, (claims) => forge(key, claims, { jku: trapUrl })],
          [`a jku in the kid ${under}`, (claims) => forge(key, claims, { kid: trapUrl })],
          [`an x5u ${under}`, (claims) => forge(key, claims, { x5u: trapUrl })],
          [`an x5c ${under}`, (claims) => forge(key, claims, { x5c: [der], x5t: b64('x') })],
          [`an iss with its own key set ${under}`, (claims) => forge(key, { ...claims, iss: new URL(trapUrl).origin })],
        ];
      }),
    ),

    'an unknown crit': (claims) => forge(active, claims, { crit: ['urn:x'], 'urn:x': true }),
    'a crit of what is not there': (claims) => forge(active, claims, { crit: ['urn:x'] }),
    'a crit of a registered name': (claims) => forge(active, claims, { crit: ['alg'] }),
    'an empty crit': (claims) => forge(active, claims, { crit: [] }),
    'a crit that is no list': (claims) => forge(active, claims, { crit: 'exp' }),
    'b64 false and critical': (claims) => forge(active, claims, { b64: false, crit: ['b64'] }),
    'b64 false and critical, the payload as it is': () => {
      const input = `${b64({ ...headerOf(active), b64: false, crit: ['b64'] })}.payload`;
      return `${input}.${b64(signatureOf(active, input))}`;
    },
    'a header that is no JSON': (claims) => forge(active, claims, 'alg=none'),
    'a header that is null': (claims) => forge(active, claims, 'null'),
    'a header that is a list': (claims) => forge(active, claims, '[]'),
    'a JWE of five parts': (claims) =>
      `${b64({ alg: 'dir', enc: 'A128GCM', typ: 'at+jwt', kid: active.kid })}..AAAA.${b64(claims)}.AAAA`,
    'the JSON serialization': (claims) => {
      const [head, payload, signature] = forge(active, claims).split('.');
      return b64({ protected: head, payload, signature });
    },

    ...Object.fromEntries(
      (
        [
          ['traversal', '../../../../../../dev/null'],
          ['traversal to a file of the Worker', '../../index.js'],
          ['a NUL byte', `${active.kid}\u0000`],
          ['a newline', `${active.kid}\n`],
          ['a space', ` ${active.kid}`],
          ['SQL', "' UNION SELECT 'AAAA' --"],
          ['a shell command', '$(id)|id'],
          ['the prototype', '__proto__'],
          ['a constructor', 'constructor'],
          ['upper case', active.kid.toUpperCase()],
          ['nothing', ''],
          ['a kid that was never used', randomUUID()],
          ['1,000 characters', 'k'.repeat(1_000)],
          ['no kid', undefined],
          ['null', null],
          ['a number', 1],
          ['a list with the right one', [active.kid]],
          ['an object', { toString: active.kid }],
        ] as [string, unknown][]
      ).flatMap(([name, kid]): [string, Forgery][] => [
        [`kid: ${name}, the right key`, (claims) => forge(active, claims, { kid })],
        [`kid: ${name}, the empty secret`, (claims) => forgeHmac('', 'HS256', claims, kid as string)],
      ]),
    ),
    ...Object.fromEntries(
      (['HS256', 'HS384', 'HS512'] as const).flatMap((hs) =>
        Object.entries(publicSecrets(active)).map(([name, secret]): [string, Forgery] => [
          `${hs}, ${name}`,
          (claims) => forgeHmac(secret, hs, claims, active.kid),
        ]),
      ),
    ),
  };

  test.each(Object.entries(forgeries))('%s: refused', async (_, forgery) => {
    const claims = claimsLike(victim.access);
    expectRefused(await scene.me(forgery(claims)), 'INVALID_TOKEN');
    // One step away from what is accepted.
    expect((await scene.me(forge(active, claims))).status).toBe(200);
  });

  test.each(Object.keys(own) as (keyof typeof own)[])('the %s key verifies, under its own kid', async (state) => {
    const answer = await scene.me(forge(own[state], claimsLike(victim.access)));
    expect([answer.status, answer.body.id]).toEqual([200, victim.id]);
  });

  test('the public parts of the keys do not sign', async () => {
    const { body } = await scene.call('GET', '/.well-known/jwks.json');
    expect(body.keys.toSorted(byKid)).toEqual(Object.values(own).map(published).toSorted(byKid));
  });
  const byKid = (a: { kid: string }, b: { kid: string }) => a.kid.localeCompare(b.kid);

  test('members of the header that the app does not know change nothing, and their URLs are not fetched', async () => {
    const jwk = published(evil);
    const idle = [{ jwk }, { jku: trapUrl }, { x5u: trapUrl }, { x5c: ['AAAA'] }, { zip: 'DEF' }, { b64: true }];
    for (const header of [...idle, { b64: false }, { cty: 'JWT' }]) {
      // The signature is the Worker's own, and the payload is read as it stands.
      const answer = await scene.me(forge(active, claimsLike(victim.access), header));
      expect([header, answer.status, answer.body.id]).toEqual([header, 200, victim.id]);
    }
  });

  test('an administrator by forgery sees nothing', async () => {
    const claims = { ...claimsLike(victim.access), role: 'admin' };
    for (const path of ['/v1/users', `/v1/users/${victim.id}`]) {
      expectRefused(await scene.call('GET', path, { token: forge(sameKid, claims) }), 'INVALID_TOKEN');
      expect((await scene.call('GET', path, { token: forge(active, claims) })).status).toBe(200);
    }
  });

  test.runIf(alg === 'ES256')('the other signature of the same token is the same token, and as revoked', async () => {
    const device = await scene.signIn(victim);
    const copy = mirrored(device.access);
    expect(copy).not.toBe(device.access);
    const answer = await scene.me(copy);
    expect([answer.status, answer.body.id]).toEqual([200, victim.id]);
    expect((await scene.call('POST', '/v1/auth/logout', { token: device.access })).status).toBe(204);
    expectRefused(await scene.me(copy), 'TOKEN_REVOKED');
    expectRefused(await scene.me(mirrored(forge(active, claimsOf(device.access)))), 'TOKEN_REVOKED');
  });

  test('no key was fetched, the victim notices nothing, the logs say nothing', async () => {
    // The trap does work.
    expect((await fetch(trapUrl)).status).toBe(200);
    expect(trapped).toBe(alg === 'Ed25519' ? 1 : 2);
    await expectUnharmed(scene, victim);
    expectQuietLogs(scene, victim.email, victim.access, victim.refresh);
  });
});
