/** One message to one person. */
export interface Mail {
  to: string;
  /** One line. */
  subject: string;
  text: string;
  html?: string;
}

/** A way to send mail. */
export interface Mailer {
  /** Resolves once the message was taken over. @throws {Error} with a `code`, where there is one */
  send(mail: Mail): Promise<void>;
  /** Whether another attempt would change nothing. */
  isFinal(error: unknown): boolean;
}
