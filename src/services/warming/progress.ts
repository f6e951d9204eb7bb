import * as z from 'zod';

/** How far a run of a warming job has come. Times are milliseconds since the Unix epoch. */
const progressSchema = z.object({
  /** `running`: items remain, whether or not an isolate works on them now. `stopped`: an administrator ended it early. */
  state: z.enum(['running', 'done', 'stopped']),
  /** Where the next slice begins; `''` at the beginning. */
  cursor: z.string(),
  /** Items warmed, and those that could not be. */
  done: z.number(),
  failed: z.number(),
  /** How many there were when the run began; `null` when the job does not count them. */
  total: z.number().nullable(),
  startedAtMs: z.number(),
  updatedAtMs: z.number(),
});

export type WarmingProgress = z.infer<typeof progressSchema>;

/** `undefined` for nothing, and for what is not ours: the run begins anew. */
export function parseProgress(text: unknown): WarmingProgress | undefined {
  if (typeof text !== 'string') return undefined;
  try {
    return progressSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** A cron trigger that came a little early is on time. */
const TICK_TOLERANCE_MS = 30_000;

/** Whether the scheduled handler goes on with a job, whoever began it, or begins it again. */
export function isDue(everySeconds: number | undefined, progress: WarmingProgress | undefined, nowMs: number): boolean {
  if (progress?.state === 'running') return true;
  if (everySeconds === undefined) return false;
  if (progress === undefined) return true;
  return nowMs - progress.startedAtMs >= everySeconds * 1_000 - TICK_TOLERANCE_MS;
}
