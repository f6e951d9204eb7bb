import { configOf } from './config/env';
import { describeError, log } from './config/log';
import { createServices } from './services';
import { isolateOf } from './services/isolate';
import { runWithServices } from './services/scope';

/** What one run may wait for Redis in all. */
const MAX_REDIS_MS = 20_000;

/** Each minute: tells Redis what it has not been told, and clears what has expired. */
export const scheduled: ExportedHandlerScheduledHandler<Env> = async (_controller, env, ctx) => {
  const { services, batch } = createServices({
    isolate: isolateOf(configOf(env)),
    db: env.DB,
    waitUntil: (promise) => ctx.waitUntil(promise),
  });
  batch.setDeadline(MAX_REDIS_MS);
  await runWithServices(services, async () => {
    try {
      while ((await services.outbox.deliverDue()) > 0);
    } catch (error) {
      // The rows stay: the next minute tries again.
      log('warn', 'outbox.delivery_failed', describeError(error));
    }
    await services.session.purge();
    await batch.settle();
  });
};
