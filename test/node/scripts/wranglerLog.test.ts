import { describe, expect, it } from 'vitest';

import { WranglerLog } from '../../../src/scripts/wranglerLog.ts';

const shown = (log: WranglerLog, lines: readonly string[]) => lines.flatMap((line) => log.stdout(line) ?? []);

const START = [
  'Using secrets defined in .dev.vars',
  'Your Worker has access to the following bindings:',
  'Binding                                         Resource                  Mode',
  'env.DB (gatehouse)                              D1 Database               local',
  'env.ISSUER ("(hidden)")                         Environment Variable      local',
  '',
  '⎔ Starting local server...',
  '[wrangler:info] Ready on http://127.0.0.1:8787',
];

describe('WranglerLog', () => {
  it('shows nothing of a start, a reload or a request', () => {
    const log = new WranglerLog();
    expect(shown(log, START)).toEqual([]);
    expect(shown(log, ['[wrangler:info] GET /health 200 OK (3ms)', '⎔ Reloading local server...'])).toEqual([]);
    // Printed again when the configuration changes.
    expect(shown(log, START)).toEqual([]);
    expect(log.stderr('🪵  Logs were written to "/home/me/wrangler.log"')).toBeUndefined();
    expect(log.shownAny).toBe(false);
  });

  it('shows the Worker’s log once it runs, and JSON at any time', () => {
    const log = new WranglerLog();
    expect(log.stdout('{"level":"info","event":"early"}')).toBe('{"level":"info","event":"early"}');
    expect(log.stdout('plain')).toBeUndefined();
    shown(log, START);
    expect(log.stdout('plain')).toBe('plain');
  });

  it('shows an error with the stack below it, whatever the phase', () => {
    const log = new WranglerLog();
    const error = ['\u001b[31m[wrangler:error]\u001b[0m Error: boom', '    at fetch (index.ts:1:1)'];
    expect(shown(log, [...error, 'Total Upload: 1 KiB'])).toEqual(error);
    expect(log.shownAny).toBe(true);
  });

  it('takes wrangler’s frame off the Worker’s JSON, and leaves real errors', () => {
    const log = new WranglerLog();
    const frame = '\u001b[33m▲ \u001b[43;33m[\u001b[43;30mWARNING\u001b[43;33m]\u001b[0m \u001b[1m';
    expect(log.stderr(`${frame}{"event":"outbox.pending"}\u001b[0m`)).toBe('{"event":"outbox.pending"}');
    expect(log.stderr('✘ [ERROR] Build failed with 1 error:')).toBe('✘ [ERROR] Build failed with 1 error:');
  });

  it('says that requests wait for a build that failed, and that it works again once the Worker runs with the change', () => {
    const log = new WranglerLog();
    const reloaded = '⎔ Local server updated and ready';
    expect(shown(log, [...START, reloaded])).toEqual([]);
    const failed =
      '\u001b[31m✘ \u001b[41;31m[\u001b[41;97mERROR\u001b[41;31m]\u001b[0m \u001b[1mBuild failed with 1 error:\u001b[0m';
    expect(log.stderr(failed)).toBe(`The Worker does not build. Requests wait until it does:\n${failed}`);
    expect(log.stdout('⎔ Reloading local server...')).toBeUndefined();
    expect(log.stdout(reloaded)).toBe('The Worker builds again, and runs with the change.');
    expect(log.stdout(reloaded)).toBeUndefined();
  });

  it('keeps one blank line of several', () => {
    const log = new WranglerLog();
    const lines = ['✘ [ERROR] a', '', '', '✘ [ERROR] b'].map((line) => log.stderr(line));
    expect(lines).toEqual(['✘ [ERROR] a', '', undefined, '✘ [ERROR] b']);
  });

  it('remembers the last ten lines of unknown kind that it held back', () => {
    const log = new WranglerLog();
    shown(log, [...Array.from({ length: 12 }, (_, i) => `line ${i}`), START[0]!]);
    expect(log.hidden).toEqual(Array.from({ length: 10 }, (_, i) => `line ${i + 2}`));
  });
});
