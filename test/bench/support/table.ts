import type { CaseResult, Report } from '../question.ts';

interface Column {
  title: string;
  value: (result: CaseResult) => string;
}

/** The figures as text; ratios are to the first case. */
export function tableOf({ cases }: Report): string {
  const [ours] = cases;
  if (ours === undefined) return '(no cases)';
  const ratio = (of: keyof CaseResult) => (result: CaseResult) => (Number(result[of]) / Number(ours[of])).toFixed(2);
  const columns: Column[] = [
    { title: 'case', value: ({ name }) => name },
    { title: 'trips', value: ({ roundTrips }) => roundTrips.toFixed(2) },
    { title: 'commands', value: ({ commands }) => commands.toFixed(2) },
    { title: 'p50 ms', value: ({ p50Ms }) => p50Ms.toFixed(1) },
    { title: 'p95 ms', value: ({ p95Ms }) => p95Ms.toFixed(1) },
    { title: 'p99 ms', value: ({ p99Ms }) => p99Ms.toFixed(1) },
    { title: 'p50 ratio', value: ratio('p50Ms') },
    { title: 'req/s', value: ({ requestsPerSecond }) => requestsPerSecond.toFixed(0) },
    { title: 'req/s ratio', value: ratio('requestsPerSecond') },
  ];
  const rows = [columns.map(({ title }) => title), ...cases.map((result) => columns.map(({ value }) => value(result)))];
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)));
  const line = (row: string[]) =>
    row
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0)))
      .join('  ');
  return rows.map(line).join('\n');
}
