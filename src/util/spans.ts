import type { Tracing } from '@cloudflare/workers-types';

/** Attributes of a span. No tokens, passwords, addresses, keys or parts of statements: traces leave the app. */
export type SpanAttributes = Record<string, string | number | boolean>;

/** Runs work in a span of the request's trace, beneath the span that is active. */
export type InSpan = <T>(name: string, attributes: SpanAttributes, work: () => Promise<T>) => Promise<T>;

/** `undefined` when the request is not traced, so that spans cost nothing. */
export function spansOf(tracing: Tracing | undefined): InSpan | undefined {
  if (tracing?.getActiveSpan()?.isTraced !== true) return undefined;
  return (name, attributes, work) =>
    tracing.enterSpan(name, async (span) => {
      span.setAttributes(attributes);
      try {
        return await work();
      } catch (error) {
        const { type, isFault } = described(error);
        span.setAttribute('error.type', type);
        if (isFault) span.setStatus({ code: 'error', message: type });
        throw error;
      }
    });
}

/** {@link InSpan} where the request may not be traced. */
export function maybeInSpan<T>(
  inSpan: InSpan | undefined,
  name: string,
  attributes: SpanAttributes,
  work: () => Promise<T>,
): Promise<T> {
  return inSpan === undefined ? work() : inSpan(name, attributes, work);
}

/** The code, reason or class of an error, never its text. A refusal (4xx) is not an error of the span. */
function described(error: unknown): { type: string; isFault: boolean } {
  if (!(error instanceof Error)) return { type: 'other', isFault: true };
  const { code, reason, status } = error as Error & { code?: unknown; reason?: unknown; status?: unknown };
  const type = typeof code === 'string' ? code : typeof reason === 'string' ? reason : error.name;
  return { type, isFault: typeof status !== 'number' || status >= 500 };
}
