import { SignJWT, generateKeyPair, generateSecret, jwtVerify } from 'jose';
import type { CryptoKey } from 'jose';

interface Keys {
  signing: CryptoKey | Uint8Array;
  verifying: CryptoKey | Uint8Array;
}

const keys = new Map<string, Promise<Keys>>();

/** Made once an isolate and algorithm. */
function keysOf(algorithm: string): Promise<Keys> {
  let made = keys.get(algorithm);
  if (made === undefined) {
    made = makeKeys(algorithm);
    keys.set(algorithm, made);
  }
  return made;
}

async function makeKeys(algorithm: string): Promise<Keys> {
  if (algorithm.startsWith('HS')) {
    const secret = await generateSecret(algorithm);
    return { signing: secret, verifying: secret };
  }
  const { privateKey, publicKey } = await generateKeyPair(algorithm);
  return { signing: privateKey, verifying: publicKey };
}

/** An access token with the claims that the app's have. */
function sign(algorithm: string, key: Keys['signing']): Promise<string> {
  return new SignJWT({ sid: 'user.0123456789abcdef', role: 'user', ep: 1, av: 1, gen: 1 })
    .setProtectedHeader({ alg: algorithm, typ: 'at+jwt', kid: 'bench' })
    .setIssuer('https://gatehouse.example')
    .setAudience('gatehouse')
    .setSubject('9b0a4c1e-6f0e-4d43-8f5b-6a4bb0a1c7d2')
    .setJti(crypto.randomUUID())
    .setIssuedAt()
    .setExpirationTime('15m')
    .sign(key);
}

/**
 * `GET /<sign|verify>/<algorithm>/<times>`: does it so many times and responds with the last token. Time stands still inside a
 * request, so it is measured from outside.
 */
export default {
  async fetch(request) {
    const [, operation, algorithm = '', times = '0'] = new URL(request.url).pathname.split('/');
    const { signing, verifying } = await keysOf(algorithm);
    let token = await sign(algorithm, signing);
    for (let i = 0; i < Number(times); i += 1) {
      if (operation === 'sign') token = await sign(algorithm, signing);
      else {
        await jwtVerify(token, verifying, {
          issuer: 'https://gatehouse.example',
          audience: 'gatehouse',
          algorithms: [algorithm],
          typ: 'at+jwt',
          requiredClaims: ['exp', 'sub', 'jti'],
        });
      }
    }
    return new Response(token);
  },
} satisfies ExportedHandler;
