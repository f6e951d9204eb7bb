import { isMainThread } from 'node:worker_threads';

/**
 * Preloaded into wrangler. Its IPC channel closes when the process that started it is gone, however that died, and
 * nobody is left to stop it then.
 */
if (isMainThread && process.channel) {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  // Watching must not keep a command alive that has done its work.
  process.channel.unref();
}
