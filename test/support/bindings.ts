import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';

/** A set of settings that the Worker accepts, with keys of its own. */
export function testBindings(redis: { url: string; token: string }): Record<string, string> {
  const { privateKey } = generateKeyPairSync('ed25519');
  const signing = {
    ...privateKey.export({ format: 'jwk' }),
    kid: 'test-1',
    alg: 'Ed25519',
    use: 'sig',
    state: 'active',
  };
  const refresh = {
    kty: 'oct',
    k: randomBytes(32).toString('base64url'),
    kid: 'test-r1',
    alg: 'HS256',
    state: 'active',
  };
  return {
    ISSUER: 'http://gatehouse.test',
    AUDIENCE: 'gatehouse-test',
    SIGNING_KEYS: JSON.stringify({ keys: [signing] }),
    REFRESH_KEYS: JSON.stringify({ keys: [refresh] }),
    UPSTASH_REDIS_REST_URL: redis.url,
    UPSTASH_REDIS_REST_TOKEN: redis.token,
    KEY_PREFIX: `t${randomUUID().slice(0, 8)}`,
  };
}
