import * as z from 'zod';

/** The progress of a run of a warming job. Times are milliseconds since the Unix epoch. */
const progressSchema = z.object({
  /** `running`: items remain, even if no isolate is working on them now. `stopped`: an administrator ended it early. */
  state: z.enum(['running', 'done', 'stopped']),
  /** Where the next slice starts; `''` at the beginning. */
  cursor: z.string(),
  /** Items warmed; below, items that failed. */
  done: z.number(),
  failed: z.number(),
  /** The number of items at the start of the run; `null` if the job does not count them. */
  total: z.number().nullable(),
  startedAtMs: z.number(),
  updatedAtMs: z.number(),
});

export type WarmingProgress = z.infer<typeof progressSchema>;

/** `undefined` if the text is missing or not in the app's format: the run then starts from the beginning. */
export function parseProgress(text: unknown): WarmingProgress | undefined {
  if (typeof text !== 'string') return undefined;
  try {
    return progressSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** The cron trigger may come this much early. */
const TICK_TOLERANCE_MS = 30_000;

/** Whether the cron trigger should continue a job, or start it again. */
export function isDue(everySeconds: number | undefined, progress: WarmingProgress | undefined, nowMs: number): boolean {
  if (progress?.state === 'running') return true;
  if (everySeconds === undefined) return false;
  if (progress === undefined) return true;
  return nowMs - progress.startedAtMs >= everySeconds * 1_000 - TICK_TOLERANCE_MS;
}
