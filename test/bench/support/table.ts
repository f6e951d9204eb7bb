import type { CaseResult, Figures, Report } from '../question.ts';

/** A case, or what one load found out about it. */
type Row = Omit<CaseResult, 'loads'>;

interface Column {
  title: string;
  value: (result: Row) => string | undefined;
}

/** The figures as text; ratios are to the first case. Columns without any figure are left out. */
export function tableOf({ cases, heapBytes }: Report): string {
  const [ours] = cases;
  if (ours === undefined) return '(no cases)';
  const tables = [tableOfCases(cases)];
  for (const { load, connections } of ours.loads ?? []) {
    const rows = cases.flatMap(({ name, loads }): Row[] => {
      const figures = loads?.find((other) => other.load === load && other.connections === connections);
      return figures === undefined ? [] : [{ ...figures, name }];
    });
    tables.push(`${load}, ${connections} connection${connections === 1 ? '' : 's'}\n${tableOfCases(rows)}`);
  }
  for (const { name, rssMiB, microseconds, notes = [] } of cases) {
    if (rssMiB !== undefined) tables.push(`${name}: resident MiB after so many requests ${JSON.stringify(rssMiB)}`);
    if (microseconds !== undefined) tables.push(`microseconds a token\n${tableOfTokens(microseconds)}`);
    if (notes.length > 0) tables.push(notes.map((note) => `${name}: ${note}`).join('\n'));
  }
  if (heapBytes !== undefined) {
    const heaps = Object.entries(heapBytes).map(([name, bytes]) => `${name} ${(bytes / 1_048_576).toFixed(1)}`);
    tables.push(`heap when all was done, in MiB: ${heaps.join(', ')}`);
  }
  return tables.join('\n\n');
}

function tableOfCases(cases: readonly Row[]): string {
  const [ours] = cases;
  const fixed =
    (of: 'blockingTrips' | 'roundTrips' | 'commands' | 'cpuMicros' | keyof Figures, digits: number) => (result: Row) =>
      result[of]?.toFixed(digits);
  const ratio = (of: 'cpuMicros' | keyof Figures) => (result: Row) => {
    const [theirs, base] = [result[of], ours?.[of]];
    return theirs === undefined || base === undefined ? undefined : (theirs / base).toFixed(2);
  };
  const columns: Column[] = [
    { title: 'case', value: ({ name }: Row) => name },
    { title: 'waits for', value: fixed('blockingTrips', 2) },
    { title: 'trips', value: fixed('roundTrips', 2) },
    { title: 'commands', value: fixed('commands', 2) },
    { title: 'DB trips', value: ({ databaseTrips }: Row) => databaseTrips?.toString() },
    { title: 'DB batches', value: ({ databaseBatches }: Row) => databaseBatches?.toString() },
    { title: 'DB queries', value: ({ databaseQueries }: Row) => databaseQueries?.toString() },
    { title: 'rows read', value: ({ rowsRead }: Row) => rowsRead?.toString() },
    { title: 'rows written', value: ({ rowsWritten }: Row) => rowsWritten?.toString() },
    { title: 'messages/s', value: ({ messagesPerSecond }: Row) => messagesPerSecond?.toString() },
    { title: 'p50 ms', value: fixed('p50Ms', 2) },
    { title: 'p95 ms', value: fixed('p95Ms', 2) },
    { title: 'p99 ms', value: fixed('p99Ms', 2) },
    { title: 'p50 ratio', value: ratio('p50Ms') },
    { title: 'CPU us', value: fixed('cpuMicros', 0) },
    { title: 'CPU ratio', value: ratio('cpuMicros') },
    { title: 'req/s', value: fixed('requestsPerSecond', 0) },
    { title: 'req/s ratio', value: ratio('requestsPerSecond') },
    ...Object.keys(ours?.acceptedShare ?? {})
      .toSorted((a, b) => Number(a) - Number(b))
      .map((offered) => ({
        title: `share at ${offered}`,
        value: ({ acceptedShare }: Row) => acceptedShare?.[offered]?.toFixed(3),
      })),
    { title: 'requests', value: ({ requests }: Row) => requests?.toString() },
    { title: 'retained bytes', value: ({ retainedBytes }: Row) => retainedBytes?.toFixed(1) },
    { title: 'worst window', value: ({ worstWindow }: Row) => worstWindow?.toFixed(3) },
    { title: 'failed', value: ({ failed }: Row) => failed },
  ].filter(({ value }) => cases.some((result) => value(result) !== undefined));
  return aligned([
    columns.map(({ title }) => title),
    ...cases.map((result) => columns.map(({ value }) => value(result) ?? '')),
  ]);
}

function tableOfTokens(microseconds: NonNullable<CaseResult['microseconds']>): string {
  return aligned([
    ['algorithm', 'sign', 'verify'],
    ...Object.entries(microseconds).map(([algorithm, { sign, verify }]) => [
      algorithm,
      sign.toFixed(0),
      verify.toFixed(0),
    ]),
  ]);
}

/** The first column to the left, the others to the right. */
function aligned(rows: readonly string[][]): string {
  const widths = rows[0]?.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0))) ?? [];
  const line = (row: string[]) =>
    row
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0)))
      .join('  ');
  return rows.map(line).join('\n');
}
