/**
 * An error of the gateway itself: the request was wrong, refused, or too much.
 * Its message goes to the client, so it must never hold a secret.
 */
export class GatewayError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'GatewayError';
    this.status = status;
  }
}

/**
 * Redis cannot be asked, or did not reply. The client gets 503.
 * `sent`: whether the command may have run. The gateway never sends it again by itself.
 */
export class BackendUnavailable extends Error {
  readonly sent: boolean;

  constructor(message: string, { sent = false, cause }: { sent?: boolean; cause?: unknown } = {}) {
    super(message, { cause });
    this.name = 'BackendUnavailable';
    this.sent = sent;
  }

  /** The same error, with what it concerns at its end. */
  with(concern: string): BackendUnavailable {
    return new BackendUnavailable(`${this.message} (${concern})`, { sent: this.sent, cause: this.cause });
  }
}

/**
 * The text of an error as clients get it. An error that the gateway makes itself begins with a code, as Redis's errors do: in a
 * pipeline it may stand beside the replies of a shard that is up.
 */
export function wireText(error: Error): string {
  return error instanceof BackendUnavailable ? `UNAVAILABLE ${error.message}` : error.message;
}

/** A setting that cannot be used. `problems` has one sentence for each wrong setting, without its secret value. */
export class SettingsError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`gateway: ${problems.join('; ')}`);
    this.name = 'SettingsError';
    this.problems = problems;
  }
}
