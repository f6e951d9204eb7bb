import { SettingsError } from './errors.ts';
import { startGateway } from './gateway.ts';
import { logToStderr } from './log.ts';
import { readSettings } from './settings.ts';

/**
 * The gateway as a program: `GATEWAY_TOKEN=… node src/gateway/main.ts`. Settings come from the environment, see the
 * README. Prints one line of JSON once it serves; ends with 1 and one line on stderr when it cannot start.
 */
try {
  const gateway = await startGateway({ ...readSettings(process.env), log: logToStderr });
  const stop = () => {
    gateway.close().then(
      () => process.exit(0),
      () => process.exit(1),
    );
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
  // A parent that started this as a child with an IPC channel and then died would leave it behind.
  process.once('disconnect', stop);
  const ready = { event: 'ready', url: gateway.url, backend: gateway.backend };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
  process.send?.(ready);
} catch (error) {
  const expected = error instanceof SettingsError || (error instanceof Error && 'code' in error);
  process.stderr.write(`${expected ? error.message : (error as Error).stack}\n`);
  process.exitCode = 1;
}
