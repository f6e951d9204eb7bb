import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { otherLocalDatabase, watchSettings } from '../../../src/scripts/devChanges.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-changes-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name: string, text: string) => writeFileSync(join(folder, name), text);

describe('a file that is read at the start only', () => {
  test('is named with each change of its text, also when an editor puts a new file in its place', async () => {
    write('wrangler.toml', 'name = "a"');
    const lines: string[] = [];
    const end = watchSettings((line) => lines.push(line), folder);
    try {
      for (const name of ['b', 'c', 'd', 'e']) {
        const before = lines.length;
        write('wrangler.toml~', `name = "${name}"`);
        renameSync(join(folder, 'wrangler.toml~'), join(folder, 'wrangler.toml'));
        await expect.poll(() => lines.length).toBe(before + 1);
      }
      write('.dev.vars', `LIMIT_API='5/1m'`);
      await expect.poll(() => lines.length).toBe(5);
      expect(lines.slice(3)).toEqual([
        'wrangler.toml has changed: stop npm run dev and start it again to use it.',
        '.dev.vars has changed: stop npm run dev and start it again to use it.',
      ]);
    } finally {
      end();
    }
  });

  test('is not named when it is as it was, nor is another file', async () => {
    write('wrangler.toml', 'name = "a"');
    const lines: string[] = [];
    const end = watchSettings((line) => lines.push(line), folder);
    try {
      write('wrangler.toml', 'name = "b"');
      await expect.poll(() => lines.length).toBe(1);
      write('wrangler.toml', 'name = "a"');
      write('package.json', '{}');
      // A later change of the same watcher shows that it has seen the two.
      await expect
        .poll(
          () => {
            write('.dev.vars', `A='${Math.random()}'`);
            return lines.length;
          },
          { interval: 500 },
        )
        .toBeGreaterThan(1);
      expect(lines[1]).toMatch(/^\.dev\.vars has changed/);
    } finally {
      end();
    }
  });
});

describe('the local database', () => {
  const toml = (id: string) =>
    `[[d1_databases]]\nbinding = "OTHER"\ndatabase_id = "other"\n` +
    `[[d1_databases]]\nbinding = "DB"\n# database_id = "none"\n${id}\n` +
    `[[env.staging.d1_databases]]\nbinding = "DB"\ndatabase_id = "staging"\n`;
  const started = (id: string) => {
    write('wrangler.toml', toml(id));
    return otherLocalDatabase(folder, join(folder, 'state'));
  };

  test('is announced as another one once, with the way back, when its id has changed', () => {
    expect(started('database_id = "1"')).toBeUndefined();
    expect(started('database_id = "1"\nmigrations_dir = "m"')).toBeUndefined();
    expect(started('database_id = "2"')).toMatch(/another database_id.*set database_id = "1"\.$/);
    expect(started('database_id = "2"')).toBeUndefined();
    expect(started('database_id = "1"')).toContain('set database_id = "2"');
  });

  test('stays the same with an id for development', () => {
    expect(started('database_id = "1"\npreview_database_id = "local"')).toBeUndefined();
    expect(started('database_id = "2"\npreview_database_id = "local"')).toBeUndefined();
  });
});
