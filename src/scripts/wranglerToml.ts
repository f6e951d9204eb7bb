/** A line of wrangler.toml that sets something. */
export interface TomlLine {
  /** From 1. */
  number: number;
  /** Name of the table, without `env.NAME.`: `vars`, `d1_databases`, or empty above the first table. */
  table: string;
  /** Counts the tables of the file, so that lines of two tables with one name are kept apart. */
  tableNumber: number;
  /** The text before the `=`. */
  name: string;
  /** The texts in the value, without their quotes; several in an array or an inline table. */
  texts: readonly string[];
  /** The line as it stands, without its comment. */
  source: string;
}

/** A text in quotes, or a comment: whichever begins first. */
const TEXT_OR_COMMENT = /"((?:\\.|[^"\\])*)"|'([^']*)'|#.*$/g;

/**
 * Lines that count for one environment: those of its own tables, or with `''` those of production, which is all that stands in
 * no `[env.…]` table. It reads what wrangler.toml has, one setting a line, and not all of TOML.
 */
export function linesOf(toml: string, environment: string): TomlLine[] {
  const lines: TomlLine[] = [];
  let table: string | undefined = environment === '' ? '' : undefined;
  let tableNumber = 0;
  for (const [index, whole] of toml.split('\n').entries()) {
    const texts: string[] = [];
    const source = whole
      .replaceAll(TEXT_OR_COMMENT, (match, double?: string, single?: string) => {
        const text = double ?? single;
        if (text === undefined) return '';
        texts.push(text);
        return match;
      })
      .trim();
    const header = /^\[\[?\s*([^\]]+?)\s*\]/.exec(source)?.[1];
    if (header !== undefined) {
      table = tableOf(header, environment);
      tableNumber += 1;
      continue;
    }
    if (table === undefined || source === '') continue;
    const name = /^([\w."-]+)\s*=/.exec(source)?.[1] ?? '';
    lines.push({ number: index + 1, table, tableNumber, name, texts, source });
  }
  return lines;
}

/** @returns `undefined` for a table of another environment */
function tableOf(header: string, environment: string): string | undefined {
  const [, named, rest = ''] = /^env\.([\w-]+)(?:\.(.+))?$/.exec(header) ?? [];
  if (named === undefined) return environment === '' ? header : undefined;
  return named === environment ? rest : undefined;
}

/** Names of the environments beside production. */
export function environmentsOf(toml: string): string[] {
  return [...new Set(Array.from(toml.matchAll(/^\s*\[\[?\s*env\.([\w-]+)/gm), ([, name = '']) => name))];
}
