import type { CaseResult, Figures, Report } from '../question.ts';

interface Column {
  title: string;
  value: (result: CaseResult) => string | undefined;
}

/** The figures as text; ratios are to the first case. Columns in which nobody has a figure are left out. */
export function tableOf({ cases }: Report): string {
  const [ours] = cases;
  if (ours === undefined) return '(no cases)';
  const tables = [tableOfCases(cases)];
  for (const { load, connections } of ours.loads ?? []) {
    const rows = cases.flatMap(({ name, loads }): CaseResult[] => {
      const figures = loads?.find((other) => other.load === load && other.connections === connections);
      return figures === undefined ? [] : [{ ...(figures satisfies Figures), name }];
    });
    tables.push(`${load}, ${connections} connection${connections === 1 ? '' : 's'}\n${tableOfCases(rows)}`);
  }
  for (const { name, rssMiB } of cases) {
    if (rssMiB !== undefined) tables.push(`${name}: resident MiB after so many requests ${JSON.stringify(rssMiB)}`);
  }
  return tables.join('\n\n');
}

function tableOfCases(cases: readonly CaseResult[]): string {
  const [ours] = cases;
  const fixed = (of: 'roundTrips' | 'commands' | keyof Figures, digits: number) => (result: CaseResult) =>
    result[of]?.toFixed(digits);
  const ratio = (of: keyof Figures) => (result: CaseResult) => {
    const [theirs, base] = [result[of], ours?.[of]];
    return theirs === undefined || base === undefined ? undefined : (theirs / base).toFixed(2);
  };
  const columns: Column[] = [
    { title: 'case', value: ({ name }: CaseResult) => name },
    { title: 'trips', value: fixed('roundTrips', 2) },
    { title: 'commands', value: fixed('commands', 2) },
    { title: 'p50 ms', value: fixed('p50Ms', 2) },
    { title: 'p95 ms', value: fixed('p95Ms', 2) },
    { title: 'p99 ms', value: fixed('p99Ms', 2) },
    { title: 'p50 ratio', value: ratio('p50Ms') },
    { title: 'req/s', value: fixed('requestsPerSecond', 0) },
    { title: 'req/s ratio', value: ratio('requestsPerSecond') },
    ...Object.keys(ours?.acceptedShare ?? {})
      .toSorted((a, b) => Number(a) - Number(b))
      .map((offered) => ({
        title: `share at ${offered}`,
        value: ({ acceptedShare }: CaseResult) => acceptedShare?.[offered]?.toFixed(3),
      })),
  ].filter(({ value }) => cases.some((result) => value(result) !== undefined));
  const rows = [
    columns.map(({ title }) => title),
    ...cases.map((result) => columns.map(({ value }) => value(result) ?? '')),
  ];
  const widths = columns.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)));
  const line = (row: string[]) =>
    row
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0)))
      .join('  ');
  return rows.map(line).join('\n');
}
