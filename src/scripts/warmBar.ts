/** A job in the API's form. */
export interface Job {
  name: string;
  state: 'idle' | 'running' | 'done';
  done?: number;
  failed?: number;
  total?: number | null;
  startedAt?: string;
}

/** How far a job is, in one line; with a bar of `width` characters where it is known how much there is to do. */
export function describe(job: Job, elapsedMs: number, width = 0): string {
  const { done = 0, failed = 0, total = null } = job;
  const counted = total === null ? String(done + failed) : `${done + failed}/${total}`;
  const tail = `${counted}${failed > 0 ? `, ${failed} failed` : ''}, ${(elapsedMs / 1_000).toFixed(1)} s`;
  if (total === null || total <= 0 || width <= 0) return `${plain(job.name)}: ${tail}`;
  // Items that were added after the count do not make the bar longer.
  const filled = Math.round(width * Math.min(1, (done + failed) / total));
  return `${plain(job.name)} [${'#'.repeat(filled)}${'-'.repeat(width - filled)}] ${tail}`;
}

/** Where progress goes: on a terminal one line that is written over, elsewhere a line for each report. */
export interface Progress {
  show(job: Job, elapsedMs: number): void;
  /** A line that stays. */
  note(line: string): void;
}

const BAR = 30;
/** Back to the beginning of the line, and clear it (ECMA-48). */
const AGAIN = '\r\u001B[K';

export function progressOn(stream: { isTTY?: boolean; columns?: number; write(text: string): unknown }): Progress {
  const terminal = stream.isTTY === true;
  let shown = false;
  return {
    show(job, elapsedMs) {
      if (!terminal) return void stream.write(`${describe(job, elapsedMs)}\n`);
      // A line that wraps could not be written over. Some terminals have 0 columns: they do not know.
      stream.write(AGAIN + describe(job, elapsedMs, BAR).slice(0, (stream.columns || 80) - 1));
      shown = true;
    },
    note(line) {
      stream.write(`${shown ? AGAIN : ''}${plain(line)}\n`);
      shown = false;
    },
  };
}

/** Removes control characters, so that a server's text cannot control the terminal. */
function plain(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ');
}
