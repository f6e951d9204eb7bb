/** Something worth telling an operator. Never holds tokens, passwords, keys or values. */
export interface LogEntry {
  level: 'info' | 'warn' | 'error';
  /** For machines: `redis_connected`, `redis_lost`, `draining`, … */
  event: string;
  [detail: string]: unknown;
}

export type Log = (entry: LogEntry) => void;

/** Writes one JSON object a line to stderr: stdout is for the line that says that the gateway is ready. */
export const logToStderr: Log = ({ level, event, ...details }) => {
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), level, event, ...details })}\n`);
};
