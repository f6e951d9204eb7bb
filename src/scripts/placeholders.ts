import { linesOf } from './wranglerToml.ts';
import type { TomlLine } from './wranglerToml.ts';

/** An id of zeros, with or without hyphens. */
const ZEROS = /^(?=.*0{8})[0-]+$/;
/** Cloudflare's ids are not empty, and have no words. */
const NO_ID = /^$|[\s<>…]/;
/** Names that are reserved for examples (RFC 2606), and those of our own comments. */
const EXAMPLE_NAME = /(?:^|[\s/@.])(?:[\w-]+\.example|example\.(?:com|net|org)|your\.(?:domain|app))(?:[\s/:#?,]|$)/i;

/**
 * Settings of an environment that still are what wrangler.toml or its documentation shows as an example.
 *
 * @returns for each its line, with its number and what to put there
 */
export function placeholders(toml: string, environment: string): string[] {
  const lines = linesOf(toml, environment);
  return lines.flatMap((line) => {
    const { number, name, texts, source } = line;
    const isId = /^(?:\w+_)?id$/.test(name);
    const found = texts.some((text) => ZEROS.test(text) || (isId && NO_ID.test(text)) || EXAMPLE_NAME.test(text));
    return found ? [`line ${number}: ${source}  <- ${remedy(line, lines)}`] : [];
  });
}

/**
 * Settings that the Worker needs, and that an environment does not inherit from production.
 *
 * @returns a sentence for each
 */
export function missing(toml: string, environment: string): string[] {
  const lines = linesOf(toml, environment);
  const vars = environment === '' ? '[vars]' : `[env.${environment}.vars]`;
  const named = ['ISSUER', 'AUDIENCE']
    .filter((name) => !lines.some(({ source }) => new RegExp(`\\b${name}\\b`).test(source)))
    .map((name) => `${vars} has no ${name}`);
  const hasDatabase = lines.some(({ texts }) => texts.includes('DB') || texts.includes('HYPERDRIVE'));
  const table = environment === '' ? '[[d1_databases]]' : `[[env.${environment}.d1_databases]]`;
  return hasDatabase ? named : [...named, `no ${table} with the binding DB`];
}

function remedy({ table, tableNumber, name }: TomlLine, lines: readonly TomlLine[]): string {
  if (table === 'd1_databases') {
    const database = lines.find((line) => line.tableNumber === tableNumber && line.name === 'database_name');
    return `the id that \`npx wrangler d1 create ${database?.texts[0] ?? 'NAME'}\` prints`;
  }
  if (table === 'hyperdrive') return 'the id that `npx wrangler hyperdrive create` prints';
  if (name === 'ISSUER')
    return 'the URL that you will serve at, such as https://gatehouse.<your-subdomain>.workers.dev';
  return 'a value of your own';
}
