const MAX_STATEMENT = 500;
const MAX_MESSAGE = 300;

/**
 * A statement in a form that may be logged: literals and comments replaced, lists of placeholders shortened. Text in double
 * quotes stays where it can be a name.
 */
export function shapeOf(sql: string): string {
  return (
    sql
      // Match in the order in which SQLite reads: text inside a literal is not a comment.
      .replace(/'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/g, (token) => {
        if (token.startsWith('"')) return /^"[A-Za-z_]\w*"$/.test(token) ? token : '?';
        return token.startsWith("'") ? '?' : ' ';
      })
      .replace(/\bx\?/gi, '?')
      .replace(/(?<![\w"?])\d[\w.]*/g, '?')
      .replace(/\?(?:\s*,\s*\?)+/g, '?, …')
      .replace(/(\(\?, …\))(?:\s*,\s*\(\?, …\))+/g, '$1, …')
      .replace(/\s+/g, ' ')
      .trim()
      .slice(0, MAX_STATEMENT)
  );
}

const QUOTES = /['"`]/g;

/**
 * A database message without quoted values: `near "x": syntax error` -> `near ?: syntax error`. A quoted value may contain
 * quotes, so everything from the first quote to the last is replaced.
 */
export function withoutValues(message: string): string {
  const line = message.split('\n', 1)[0] ?? '';
  const positions = [...line.matchAll(QUOTES)].map(({ index }) => index);
  const [first] = positions;
  const last = positions.length > 1 ? positions.at(-1)! + 1 : line.length;
  const text = first === undefined ? line : `${line.slice(0, first)}?${line.slice(last)}`;
  return text.replace(/\S+@\S+/g, '?').slice(0, MAX_MESSAGE);
}
