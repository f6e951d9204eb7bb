import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { aclLines } from '../../../src/gateway/acl.ts';
import { help } from '../../../src/gateway/help.ts';
import { NUMBERS } from '../../../src/gateway/settings.ts';

const page = readFileSync(new URL('../../../docs/gateway.md', import.meta.url), 'utf8');

describe('docs/gateway.md', () => {
  it('has the users to paste as the gateway prints them', () => {
    for (const line of aclLines()) expect(page.split('\n')).toContain(line);
  });

  it('has the numbers of its streams', () => {
    const source = readFileSync(new URL('../../../src/gateway/streams.ts', import.meta.url), 'utf8');
    const [, heartbeatMs = ''] = /HEARTBEAT_MS = ([\d_]+)/.exec(source) ?? [];
    const [, mebibytes] = /MAX_BUFFERED_BYTES = (\d+) \* 1024 \* 1024/.exec(source) ?? [];
    expect(page).toMatch(new RegExp(`reader is\\s${mebibytes} MiB behind`));
    expect(page).toMatch(
      new RegExp(`${Number(heartbeatMs.replaceAll('_', '')) / 1_000}\\sseconds between their heartbeats`),
    );
  });

  it('has every setting that --help prints, with its default', () => {
    const names = help().match(/\b(?:GATEWAY|REDIS)_[A-Z_]+\b/g)!;
    expect(new Set(names).size).toBeGreaterThan(20);
    for (const name of names) expect(page).toContain(`\`${name}\``);
    for (const [name, , , , fallback] of NUMBERS) {
      const row = page.split('\n').find((line) => line.startsWith('|') && line.includes(`\`${name}\``));
      expect({ name, row }).toEqual({ name, row: expect.stringMatching(new RegExp(`[|\`, ]${fallback}[\` |]`)) });
    }
  });
});
