import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startGateway } from '../../../src/gateway/gateway.ts';
import { freePort, hasRedisServer, type RedisProcess, startRedis } from '../../support/redisServers.ts';

const directory = mkdtempSync(join(tmpdir(), 'gatehouse-tls-'));
const key = join(directory, 'key.pem');
const certificate = join(directory, 'cert.pem');

/** A certificate for 127.0.0.1 of the test's own; `false` where there is no openssl. */
function makeCertificate(): boolean {
  try {
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
    const files = ['-keyout', key, '-out', certificate];
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', ...subject, ...files], {
      stdio: 'ignore',
    });
    return true;
  } catch {
    return false;
  }
}

const possible = hasRedisServer && makeCertificate();
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.skipIf(!possible)(`rediss://${possible ? '' : ' (needs redis-server and openssl)'}`, () => {
  let server: RedisProcess;
  let tlsPort: number;
  beforeAll(async () => {
    tlsPort = await freePort();
    const files = ['--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', certificate];
    server = await startRedis('--tls-port', String(tlsPort), ...files, '--tls-auth-clients', 'no');
  });
  afterAll(() => server.stop());

  it('connects to a server whose certificate authority is configured, by address and by name', async () => {
    for (const host of ['127.0.0.1', 'localhost']) {
      await using gateway = await startGateway({
        token: 't',
        port: 0,
        redisUrl: `rediss://${host}:${tlsPort}`,
        tlsCaFile: certificate,
      });
      const response = await fetch(`${gateway.url}/set/tls/${host}?_token=t`);
      expect(await response.json()).toEqual({ result: 'OK' });
      expect(await server.command('GET', 'tls')).toBe(host);
    }
  });

  it('does not talk to a server whose certificate it cannot check', async () => {
    await using gateway = await startGateway({ token: 't', port: 0, redisUrl: `rediss://127.0.0.1:${tlsPort}` });
    const response = await fetch(`${gateway.url}/ping?_token=t`);
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({ error: expect.stringMatching(/self-signed certificate/) });
  });
});
