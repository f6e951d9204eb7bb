import { describeError, log } from './config/log';
import { runInScope } from './services';
import { isolateOf } from './services/isolate';
import { warmingJobs } from './warming';

/** What one run may wait for Redis in all. */
const MAX_REDIS_MS = 20_000;

/** Each minute: tells Redis what it has not been told, clears what has expired, and keeps warm what is to be. */
export const scheduled: ExportedHandlerScheduledHandler<Env> = async (_controller, env, ctx) => {
  const context = {
    isolate: isolateOf(env),
    db: env.DB,
    waitUntil: (promise: Promise<unknown>) => ctx.waitUntil(promise),
  };
  await runInScope(context, async ({ services, batch }) => {
    batch.setDeadline(MAX_REDIS_MS);
    await attempt('outbox', () => services.outbox.deliverDue());
    await attempt('outbox-purge', () => services.outbox.purge());
    await attempt('sessions', () => services.session.purge());
    await attempt('blacklist', () => services.blacklist.purge());
    await attempt('one-time-tokens', () => services.recovery.purge());
    await attempt('search', () => services.user.fillSearch());
    await attempt('warming', () => services.warm.runDue(warmingJobs));
    await batch.settle();
  });
};

/** One job's failure is not the other's; the next minute tries again. */
async function attempt(job: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    log('warn', 'scheduled.failed', { job, ...describeError(error) });
  }
}
