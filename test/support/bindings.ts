import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';

/** The product's own cost of a password hash: for tests of its effect on other requests. */
export const TRUE_HASHES = { SCRYPT_LN: '15', SCRYPT_R: '8', SCRYPT_P: '3' };

/** Deadlines that no busy machine reaches. */
export const PATIENT_DEADLINES = {
  REDIS_GUARD_DEADLINE_MS: '10000',
  REDIS_AUTH_DEADLINE_MS: '10000',
  REDIS_CALL_TIMEOUT_MS: '20000',
  DATABASE_DEADLINE_MS: '20000',
};

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
    // Tests count commands; those of overridden limits turn it on.
    LIMIT_OVERRIDES_SECONDS: '0',
    // A hundredth of a true one: most tests are not about it, and there are hundreds.
    SCRYPT_LN: '10',
    SCRYPT_P: '1',
    // Reports are commands of their own: tests that are about them ask for them.
    METRICS_INTERVAL_MS: '0',
    KEY_PREFIX: `t${randomUUID().slice(0, 8)}`,
  };
}
