/** One message to one recipient. */
export interface Mail {
  to: string;
  /** One line. */
  subject: string;
  text: string;
  html?: string;
}

/** A way to send mail. */
export interface Mailer {
  /** Resolves once the message is accepted. @throws {Error} with a `code`, if there is one */
  send(mail: Mail): Promise<void>;
  /** Whether a retry is useless. */
  isFinal(error: unknown): boolean;
}
