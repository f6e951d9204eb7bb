import { parseArgs } from 'node:util';
import { SettingsError } from './errors.ts';
import { startGateway } from './gateway.ts';
import { help } from './help.ts';
import { logToStderr } from './log.ts';
import { readSettings, reloadTokens } from './settings.ts';

/**
 * The gateway as a program: `GATEWAY_TOKEN=… node src/gateway/main.ts`. Settings come from the environment, see
 * `--help`. Prints one line of JSON once it serves; ends with 1 and one line on stderr when it cannot start.
 */
try {
  const { values } = parseArgs({ options: { help: { type: 'boolean', short: 'h' } } });
  if (values.help) process.stdout.write(help());
  else await serve();
} catch (error) {
  const expected = error instanceof SettingsError || (error instanceof Error && 'code' in error);
  process.stderr.write(`${expected ? error.message : (error as Error).stack}\n`);
  process.exitCode = 1;
}

async function serve(): Promise<void> {
  const gateway = await startGateway({ logRequests: 'failures', ...readSettings(process.env), log: logToStderr });
  const stop = () => {
    gateway.close().then(
      () => process.exit(0),
      () => process.exit(1),
    );
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
  // When a parent that started this program with an IPC channel dies, the program ends too.
  process.once('disconnect', stop);
  process.on('SIGHUP', () => {
    try {
      const tokens = reloadTokens(process.env);
      gateway.setTokens(tokens);
      const { full, readOnly } = tokens;
      logToStderr({ level: 'info', event: 'tokens_reloaded', full: full.length, readOnly: readOnly.length });
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      logToStderr({ level: 'error', event: 'tokens_not_reloaded', reason: error.problems.join('; ') });
    }
  });
  const ready = { event: 'ready', url: gateway.url, backend: gateway.backend };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
  process.send?.(ready);
}
