import { Hono } from 'hono';

import { AppError } from '../errors';
import { validParam, validQuery } from '../middlewares/body.middleware';
import type { AppEnv } from '../middlewares/services.middleware';
import { AuditService } from '../services/audit.service';
import { lockRefused } from '../services/lock.service';
import { WarmingService } from '../services/warming.service';
import type { WarmingJob, WarmingProgress } from '../services/warming.service';
import { timestamp } from '../util/timestamp';
import { warmingJobs } from '../warming';
import { adminOnly } from './admin/only';
import { warmingParam, warmingSchema } from './schemas';

/** An isolate works on a job for one slice, ten seconds at most. */
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

/** @throws {AppError} `NOT_FOUND` */
function jobNamed(name: string): WarmingJob {
  const job = warmingJobs.find((one) => one.name === name);
  if (job === undefined) throw new AppError('NOT_FOUND', { detail: 'There is no such warming job.' });
  return job;
}

export const warmingRoutes = new Hono<AppEnv>()
  .get('/', adminOnly(), async (c) => {
    const progress = await WarmingService.progress(warmingJobs);
    return c.json({ jobs: warmingJobs.map((job, index) => present(job, progress[index])) }, 200);
  })
  /** Ends a run: 200 when it has stopped, 202 while an isolate finishes the items that it has started. */
  .delete('/:job', adminOnly(), validParam(warmingParam), async (c) => {
    const job = jobNamed(c.req.valid('param').job);
    await AuditService.record({ by: c.get('auth').userId, action: 'warming-stopped', detail: { job: job.name } });
    const { stopping, progress } = await WarmingService.stop(job);
    return c.json(present(job, progress), stopping ? 202 : 200);
  })
  /** One slice: 202 while there is more to do, 200 when the run is complete. A later call starts a new run. */
  .post('/:job', adminOnly(), validParam(warmingParam), validQuery(warmingSchema), async (c) => {
    const job = jobNamed(c.req.valid('param').job);
    const options = c.req.valid('query');
    const [known] = await WarmingService.progress([job]);
    if (options.restart || known?.state !== 'running') {
      await AuditService.record({ by: c.get('auth').userId, action: 'warming-started', detail: { job: job.name } });
    }
    const slice = await WarmingService.run(job, options);
    if (slice.ran) return c.json(present(job, slice.progress), slice.progress.state === 'running' ? 202 : 200);
    throw slice.refusal === undefined ? new AppError('CONFLICT') : lockRefused(slice.refusal, SOON_MS);
  });
