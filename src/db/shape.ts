const MAX_STATEMENT = 500;
const MAX_MESSAGE = 300;

/**
 * A statement as it may be logged: literals and comments replaced, lists of placeholders shortened. Names in double quotes
 * stay where they can be names.
 */
export function shapeOf(sql: string): string {
  return (
    sql
      // In the order in which SQLite reads: what is inside a literal is no comment.
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
 * A message of the database without what it quotes: `near "x": syntax error` -> `near ?: syntax error`. A quoted value may
 * hold quotes of its own, so everything from the first quote to the last one goes.
 */
export function withoutValues(message: string): string {
  const line = message.split('\n', 1)[0] ?? '';
  const positions = [...line.matchAll(QUOTES)].map(({ index }) => index);
  const [first] = positions;
  const last = positions.length > 1 ? positions.at(-1)! + 1 : line.length;
  const text = first === undefined ? line : `${line.slice(0, first)}?${line.slice(last)}`;
  return text.replace(/\S+@\S+/g, '?').slice(0, MAX_MESSAGE);
}
