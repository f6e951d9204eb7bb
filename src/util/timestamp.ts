/**
 * A time as the API shows it: RFC 3339 in UTC, in whole seconds, because the standard decoders of Swift and Kotlin refuse
 * fractions. Rounded down.
 */
export function timestamp(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}
