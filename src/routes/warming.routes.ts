import { Hono } from 'hono';

import { AppError } from '../errors';
import { authenticate, requireRole } from '../middlewares/auth.middleware';
import { validParam, validQuery } from '../middlewares/body.middleware';
import { guard } from '../middlewares/guard.middleware';
import { policy } from '../middlewares/policy';
import { rateLimiter } from '../middlewares/rateLimiter.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { lockRefused } from '../services/lock.service';
import { WarmService } from '../services/warm.service';
import type { WarmingJob, WarmingProgress } from '../services/warm.service';
import { timestamp } from '../util/timestamp';
import { warmingJobs } from '../warming';
import { warmingParam, warmingSchema } from './schemas';

const adminOnly = () => guard(rateLimiter(policy.api), authenticate(), requireRole('admin'));

/** Whoever is at a job is so for a slice, ten seconds at most. */
const SOON_MS = 5_000;

/** A job as the API shows it; `idle` has not run within a day. */
function present(job: WarmingJob, progress: WarmingProgress | undefined) {
  const { name } = job;
  const everySeconds = job.everySeconds ?? null;
  if (progress === undefined) return { name, everySeconds, state: 'idle' as const };
  const { state, done, failed, total, startedAtMs, updatedAtMs } = progress;
  const [startedAt, updatedAt] = [timestamp(startedAtMs), timestamp(updatedAtMs)];
  return { name, everySeconds, state, done, failed, total, startedAt, updatedAt };
}

export const warmingRoutes = new Hono<AppEnv>()
  .get('/', adminOnly(), async (c) => {
    const progress = await WarmService.progress(warmingJobs);
    return c.json({ jobs: warmingJobs.map((job, index) => present(job, progress[index])) }, 200);
  })
  /** One slice: 202 while there is more to do, 200 when the run is complete. Asked again after that, it begins anew. */
  .post('/:job', adminOnly(), validParam(warmingParam), validQuery(warmingSchema), async (c) => {
    const job = warmingJobs.find(({ name }) => name === c.req.valid('param').job);
    if (job === undefined) throw new AppError('NOT_FOUND', { detail: 'There is no such warming job.' });
    const slice = await WarmService.run(job, c.req.valid('query'));
    if (slice.ran) return c.json(present(job, slice.progress), slice.progress.state === 'done' ? 200 : 202);
    throw slice.refusal === undefined ? new AppError('CONFLICT') : lockRefused(slice.refusal, SOON_MS);
  });
