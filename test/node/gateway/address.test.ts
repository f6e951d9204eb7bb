import { describe, expect, it } from 'vitest';
import { describeAddress, parseAddress } from '../../../src/gateway/address.ts';
import { SettingsError } from '../../../src/gateway/errors.ts';

describe('parseAddress', () => {
  it('reads one server', () => {
    expect(parseAddress('redis://app:p%40ss@db.example:6380/2')).toEqual({
      kind: 'direct',
      endpoint: { host: 'db.example', port: 6380, username: 'app', password: 'p@ss', database: 2, tls: undefined },
    });
    expect(parseAddress('rediss://[::1]')).toMatchObject({ endpoint: { host: '::1', port: 6379, tls: {} } });
    expect(parseAddress('redis://:pass:word@h')).toMatchObject({
      endpoint: { username: undefined, password: 'pass:word' },
    });
  });

  it('reads a Sentinel group', () => {
    expect(parseAddress('redis+sentinel://u:p@s1,s2:5000/my%20master?database=1&sentinelPassword=sp')).toEqual({
      kind: 'sentinel',
      master: 'my master',
      sentinels: [
        { host: 's1', port: 26_379, tls: undefined, password: 'sp' },
        { host: 's2', port: 5000, tls: undefined, password: 'sp' },
      ],
      login: { username: 'u', password: 'p', tls: undefined, database: 1 },
    });
  });

  it('reads a cluster', () => {
    expect(parseAddress('rediss+cluster://:p@a:1,[fe80::1]:2')).toMatchObject({
      kind: 'cluster',
      seeds: [
        { host: 'a', port: 1, password: 'p', tls: {} },
        { host: 'fe80::1', port: 2, password: 'p', tls: {} },
      ],
    });
  });

  it.each([
    ['no URL', 'localhost:6379'],
    ['another scheme', 'http://h'],
    ['no host', 'redis://'],
    ['several hosts for one server', 'redis://a,b'],
    ['a port that is none', 'redis://a:0'],
    ['a port that is too large', 'redis://a:65536'],
    ['a database that is no number', 'redis://a/x'],
    ['a cluster with a database', 'redis+cluster://a/1'],
    ['Sentinel without a name', 'redis+sentinel://a'],
    ['a broken escape', 'redis://:secret%zz@a'],
  ])('refuses %s without repeating it', (_what, text) => {
    let error: unknown;
    try {
      parseAddress(text);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SettingsError);
    expect((error as SettingsError).message).not.toContain('secret');
  });

  it('is described without user and password', () => {
    for (const [text, described] of [
      ['redis://u:secret@h:1/2', 'redis://h:1/2'],
      ['rediss://:secret@[::1]', 'rediss://[::1]:6379'],
      ['redis+sentinel://:secret@a,b:2/m?sentinelPassword=secret', 'redis+sentinel://a:26379,b:2/m'],
      ['redis+cluster://u:secret@a,b', 'redis+cluster://a:6379,b:6379'],
    ] as const) {
      expect(describeAddress(parseAddress(text))).toBe(described);
    }
  });
});
