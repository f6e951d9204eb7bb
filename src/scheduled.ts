import { configOf } from './config/env';
import { describeError, log } from './config/log';
import { bindingOf, runInScope } from './services/runInScope';
import { isolateOf } from './services/isolate';
import { maybeInSpan } from './util/spans';
import { warmingJobs } from './warming';

/** Total time that one run may wait for Redis. */
const MAX_REDIS_MS = 20_000;

/** Each minute: delivers the outbox to Redis, deletes expired rows (not while READ_ONLY), and runs warming jobs. */
export const scheduled: ExportedHandlerScheduledHandler<Env> = async (_controller, env, ctx) => {
  const context = {
    isolate: isolateOf(env),
    db: bindingOf(env),
    waitUntil: (promise: Promise<unknown>) => ctx.waitUntil(promise),
    tracing: ctx.tracing as Tracing | undefined,
  };
  await runInScope(context, async ({ services, batch, inSpan }) => {
    const attempt = (job: string, work: () => Promise<unknown>) =>
      attemptOne(job, () => maybeInSpan(inSpan, `scheduled ${job}`, {}, work));
    batch.setDeadline(MAX_REDIS_MS);
    await attempt('outbox', () => services.outbox.deliverDue());
    // Rows deleted while the database is being copied would reappear with the copy.
    if (!configOf(env).readOnly) {
      await attempt('outbox-purge', () => services.outbox.purge());
      await attempt('sessions', () => services.session.purge());
      await attempt('blacklist', () => services.blacklist.purge());
      await attempt('one-time-tokens', () => services.recovery.purge());
      await attempt('audit', () => services.audit.purge());
      await attempt('idempotency-keys', () => services.idempotency.purge());
      await attempt('unverified', () => services.user.purgeUnverified());
      await attempt('search', () => services.user.fillSearch());
    }
    await attempt('limit-overrides', () => services.limitOverride.publish());
    await attempt('warming', () => services.warming.runDue(warmingJobs));
    await attempt('metrics', () => services.metrics.observeOutbox());
    services.metrics.report();
    await batch.settle();
  });
};

/** A failed job must not stop the others; the next run, a minute later, retries it. */
async function attemptOne(job: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    log('warn', 'scheduled.failed', { job, ...describeError(error) });
  }
}
