import type { Violation } from './model.ts';
import type { Plan } from './plan.ts';
import type { RunResult } from './run.ts';
import { BEGIN_MS } from './scheduler.ts';

/** A plan as a line a step. */
export function planText({ seed, clocks, replicas, steps }: Plan): string {
  const skewed = clocks.flatMap(({ offsetMs, driftPpm }, index) =>
    offsetMs === 0 && driftPpm === 0 ? [] : [`${String.fromCharCode(65 + index)} ${offsetMs} ms, ${driftPpm} ppm`],
  );
  const lines = steps.map(({ at, do: what, ...rest }) => {
    const details = Object.entries(rest).map(
      ([name, value]) => `${name}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`,
    );
    return `${(at / 1_000).toFixed(3).padStart(9)}  ${what} ${details.join(' ')}`;
  });
  const clockLine = skewed.length > 0 ? [`  clocks: ${skewed.join('; ')}`] : [];
  return [
    `plan of seed ${seed}, ${steps.length} steps:`,
    ...clockLine,
    ...(replicas === true ? ['  D1 has read replicas'] : []),
    ...lines,
  ].join('\n');
}

export function violationText({ invariant, atMs, text }: Violation): string {
  return `${((atMs - BEGIN_MS) / 1_000).toFixed(3).padStart(9)}  VIOLATION of ${invariant}: ${text}`;
}

/** How much of a trace is printed after the last violation. */
const AFTERMATH_MS = 1_000;

/** What happened, with what was wrong where it was noticed; not much of what came after. */
export function traceText(plan: Plan, { lines, violations }: RunResult): string {
  const secondsOf = (line: string) => Number.parseFloat(line);
  const lastMs = violations.length > 0 ? Math.max(...violations.map(({ atMs }) => atMs)) : Number.POSITIVE_INFINITY;
  const endSeconds = (lastMs + AFTERMATH_MS - BEGIN_MS) / 1_000;
  // A stable sort: what was noticed at a time stands after what happened then.
  const sorted = [...lines, ...violations.map(violationText)]
    .filter((line) => secondsOf(line) <= endSeconds)
    .map((line, index) => ({ line, index }))
    .sort((a, b) => secondsOf(a.line) - secondsOf(b.line) || a.index - b.index);
  return `${planText(plan)}\n\n${sorted.map(({ line }) => line).join('\n')}\n`;
}
