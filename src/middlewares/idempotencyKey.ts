/** RFC 9651, section 3.1.2: parameters have no meaning here, and are skipped. */
const PARAMETERS = /^(?:; *[a-z*][\w.*-]*(?:=(?:"(?:[ !#-[\]-~]|\\["\\])*"|[A-Za-z0-9*?:+/_.-][\w*?:+/.=%-]*))?)*$/;
/** RFC 9651, section 3.3.3. */
const STRING = /^"((?:[ !#-[\]-~]|\\["\\])*)"/;

/** The longest key, in characters. */
export const MAX_KEY_LENGTH = 255;

/**
 * The key of an `Idempotency-Key`: an Item Structured Header Field whose value is a String
 * (draft-ietf-httpapi-idempotency-key-header, section 2.1).
 *
 * @returns `undefined` for anything else, such as a bare UUID, an empty string or two headers
 */
export function parseIdempotencyKey(header: string): string | undefined {
  const text = header.replace(/^[ \t]+|[ \t]+$/g, '');
  // Escapes double the length at the most; the rest is for parameters.
  if (text.length > 4 * MAX_KEY_LENGTH) return undefined;
  const match = STRING.exec(text);
  if (match === null || !PARAMETERS.test(text.slice(match[0].length))) return undefined;
  const key = match[1]!.replace(/\\(.)/g, '$1');
  return key !== '' && key.length <= MAX_KEY_LENGTH ? key : undefined;
}
