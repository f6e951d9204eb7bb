import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { stripVTControlCharacters } from 'node:util';

import { ROOT, UserError } from './cli.ts';
import type { DevDatabase } from './devDatabase.ts';
import type { DevSettings } from './devSettings.ts';
import { readText } from './devVars.ts';
import { startWrangler, stopWrangler } from './wrangler.ts';
import { WranglerLog } from './wranglerLog.ts';

/** wrangler dev, and the Worker in it. */
export interface DevWorker {
  /** Rejects when wrangler ends and `stop` was not called; never resolves. */
  died: Promise<never>;
  stop(): Promise<void>;
}

/**
 * Starts the Worker, and passes its log on until `stop`.
 *
 * @param redisUrl what the Worker is to reach Redis by
 */
export function startWorker(
  settings: DevSettings,
  { redisUrl, database }: { redisUrl: string; database: DevDatabase },
  stop: AbortSignal,
): DevWorker {
  const { host, port } = settings;
  const { toml, env } = database.wrangler();
  const config = readText(join(ROOT, 'wrangler.toml')) ?? '';
  // wrangler watches its configuration, dies of one that is half written, and loses sight of one that an editor has replaced
  // twice: it gets a copy, in the same folder, so that the paths in it mean the same.
  const copy = join(ROOT, `.wrangler.dev.${port}.toml`);
  writeFileSync(copy, config + toml);
  const options = ['--test-scheduled', '--show-interactive-dev-session=false', `--config=${copy}`];
  const child = startWrangler(['dev', `--ip=${host}`, `--port=${port}`, ...options], {
    env,
    hidden: overrides(settings, redisUrl, config).flatMap(([name, value]) => ['--var', `${name}:${value}`]),
  });
  const log = new WranglerLog();
  for (const name of ['stdout', 'stderr'] as const) {
    createInterface({ input: child[name]! }).on('line', (line) => {
      const shown = log[name](line);
      if (shown !== undefined && !stop.aborted)
        process[name].write(`${process[name].isTTY ? shown : stripVTControlCharacters(shown)}\n`);
    });
  }
  const died = new Promise<never>((_, reject) => {
    child.once('error', reject);
    // 'close', not 'exit': its last words have been read by then.
    child.once('close', (code, signal) => {
      const how = `wrangler ended unexpectedly (${signal ?? `exit code ${code}`})`;
      const last = log.hidden.length > 0 ? ['. Its last lines:', ...log.hidden].join('\n') : '.';
      reject(new UserError(`${how}${log.shownAny ? ', see above.' : last}`));
    });
  });
  // Not awaited when it is stopped on purpose.
  died.catch(() => {});
  return { died, stop: () => stopWrangler(child).finally(() => rmSync(copy, { force: true })) };
}

/** Settings that the Worker would not see, or would see wrongly, if wrangler read .dev.vars alone. */
function overrides({ vars }: DevSettings, redisUrl: string, config: string): [name: string, value: string][] {
  // With required secrets declared, wrangler silently drops every other name of .dev.vars that wrangler.toml lacks.
  const declared = new Set(config.replaceAll(/^\s*#.*$/gm, '').match(/\w+/g));
  const merged = new Map([...vars].filter(([name]) => !declared.has(name)));
  // Mails are shown with the Worker's log, unless .dev.vars chooses otherwise, or the Worker would refuse it.
  const local = /^(127\.[\d.]+|localhost|\[::1\])$/.test(new URL(vars.get('ISSUER')!).hostname);
  if (local && !vars.has('MAILER')) merged.set('MAILER', 'console');
  if (redisUrl !== vars.get('UPSTASH_REDIS_REST_URL')) merged.set('UPSTASH_REDIS_REST_URL', redisUrl);
  return [...merged];
}
