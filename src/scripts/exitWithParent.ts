import { Socket } from 'node:net';
import { isMainThread } from 'node:worker_threads';

/**
 * Preloaded into wrangler. Descriptor 3 is a pipe from the process that started it: it ends when that one is gone,
 * however it died, and nobody is left then to stop wrangler. (An IPC channel would not do: wrangler closes it itself.)
 */
if (isMainThread && process.env['EXIT_WITH_PARENT'] === String(process.ppid)) {
  const parent = new Socket({ fd: 3 });
  parent.on('error', () => parent.destroy());
  parent.on('close', () => process.kill(process.pid, 'SIGTERM'));
  parent.resume();
  // Watching must not keep a command alive that has done its work.
  parent.unref();
}
