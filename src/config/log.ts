/**
 * Structured logs: one JSON object a line, for Workers Logs. Callers pass names and numbers, never tokens, passwords,
 * e-mail addresses or request bodies.
 */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

let context: () => LogFields = () => ({});

/** Fields of every log line that is written for a request: its `requestId`. */
export function setLogContext(of: () => LogFields): void {
  context = of;
}

export function log(level: LogLevel, event: string, fields: LogFields = {}): void {
  // oxlint-disable-next-line no-console -- all logs are written here
  console[level](JSON.stringify({ level, event, ...context(), ...fields }));
}

/**
 * The loggable facts of an unknown error: its class and code, and the `logFields` that one of our own error classes declares
 * as free of values. Messages of drivers quote values and commands.
 */
export function describeError(error: unknown): LogFields {
  if (!(error instanceof Error)) return { error: typeof error };
  const { code, reason, logFields } = error as { code?: unknown; reason?: unknown; logFields?: LogFields };
  return {
    error: error.name,
    code: typeof code === 'string' ? code : undefined,
    reason: typeof reason === 'string' ? reason : undefined,
    ...logFields,
  };
}
