import { Socket } from 'node:net';
import { isMainThread } from 'node:worker_threads';

/** How long wrangler may take to end by itself, in milliseconds. */
const GRACE_MS = 4_000;

/**
 * Preloaded into wrangler. Descriptor 3 is a pipe from the process that started it: it ends when that one is gone,
 * however it died. Nothing else would then stop wrangler, or what wrangler leaves behind: a workerd without its parent
 * goes on for ever. (An IPC channel would not do: wrangler closes it itself.)
 */
if (isMainThread && process.env['EXIT_WITH_PARENT'] === String(process.ppid)) {
  const parent = new Socket({ fd: 3 });
  parent.on('error', () => parent.destroy());
  parent.on('close', () => {
    // wrangler leads a process group of its own.
    const endAll = () => void process.kill(process.platform === 'win32' ? process.pid : -process.pid, 'SIGKILL');
    if (process.listenerCount('SIGTERM') === 0) endAll();
    process.on('exit', endAll);
    setTimeout(endAll, GRACE_MS);
    process.kill(process.pid, 'SIGTERM');
  });
  parent.resume();
  // Watching must not keep a command alive that has done its work.
  parent.unref();
}
