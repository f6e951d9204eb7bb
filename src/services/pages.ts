/**
 * The number of rows of a list, without reading the rows up to the page's end a second time.
 *
 * @param rows of the page, each with the number of rows after the page
 * @param offset rows before the page
 * @param countAll for a page after the last one, which has no rows
 */
export async function totalOf(
  rows: readonly { others: number }[],
  offset: number,
  countAll: () => Promise<readonly { total: number }[]>,
): Promise<number> {
  const [first] = rows;
  if (first !== undefined || offset === 0) return offset + rows.length + (first?.others ?? 0);
  const [all] = await countAll();
  return all?.total ?? 0;
}
