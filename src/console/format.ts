const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const twoFigures = new Intl.NumberFormat('en', { maximumSignificantDigits: 2 });

export const count = (value: number): string => whole.format(value);
/** Two figures, and all that stand before the point. */
export const number = (value: number): string => (value >= 100 ? whole.format(value) : twoFigures.format(value));

export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.1) return '< 0.1\u00a0%';
  return `${value >= 10 ? Math.round(value) : Math.round(value * 10) / 10}\u00a0%`;
}

/** Seconds as a duration of two figures. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 1) return `${number(seconds * 1_000)}\u00a0ms`;
  if (seconds < 120) return `${number(seconds)}\u00a0s`;
  return span(seconds);
}

const UNITS = [
  ['d', 86_400],
  ['h', 3_600],
  ['min', 60],
  ['s', 1],
] as const;

/** A longer time, in its largest unit. */
export function span(seconds: number): string {
  const [unit, length] = UNITS.find(([, size]) => seconds >= size * 2) ?? ['s', 1];
  return `${Math.round(seconds / length)}\u00a0${unit}`;
}

/** A window as settings write it: `100 in 15 min`. */
export function windowText({ maxRequests, windowMs }: { maxRequests: number; windowMs: number }): string {
  const seconds = windowMs / 1_000;
  const [unit, length] = UNITS.find(([, size]) => seconds % size === 0) ?? ['s', 1];
  const times = seconds / length;
  return `${count(maxRequests)} in ${number(times)} ${unit}`;
}

const dateTime = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

export const at = (time: string): string => dateTime.format(new Date(time));
export const clockAt = (ms: number): string => clock.format(new Date(ms));

export function ago(time: string, nowMs = Date.now()): string {
  const seconds = Math.max(0, (nowMs - Date.parse(time)) / 1_000);
  return seconds < 5 ? 'just now' : `${span(seconds)} ago`;
}

/** A chrome of a User-Agent is not worth its length. */
export const shortDevice = (device: string): string =>
  device.length > 60 ? `${device.slice(0, 57)}…` : device === '' ? '–' : device;
