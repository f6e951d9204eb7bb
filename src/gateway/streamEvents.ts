/**
 * How events are written: `'lines'` as the format of server-sent events has it, a line break in a payload as a further
 * `data:` line; `'sdk'` as Upstash's SDK reads it.
 *
 * The SDK (1.39, `pkg/http.ts` and `pkg/commands/subscribe.ts`) takes every line for an event of its own, splits an event
 * at its commas, and parses the payload as JSON: one of a channel falls back to the text, one of a pattern must be JSON.
 * So for it a payload of several lines is written on one, and one that is no JSON as a JSON string where it has to be.
 * A comma in a channel's name is written as %2C, or the SDK would take its rest for the payload's beginning.
 */
export type EventForm = 'lines' | 'sdk';

export function confirmation(pattern: boolean, name: string, form: EventForm): string {
  return `${pattern ? 'psubscribe' : 'subscribe'},${channelText(name, form)},1`;
}

export function messageEvent(channel: string, payload: string, form: EventForm): string {
  const text = form === 'sdk' && /[\r\n]/.test(payload) ? jsonOnOneLine(payload) : payload;
  return `message,${channelText(channel, form)},${text}`;
}

export function patternEvent(pattern: string, channel: string, payload: string, form: EventForm): string {
  const text = form === 'sdk' ? jsonOnOneLine(payload) : payload;
  return `pmessage,${channelText(pattern, form)},${channelText(channel, form)},${text}`;
}

/** JSON on one line that the SDK's `JSON.parse` turns into what its publisher meant. */
function jsonOnOneLine(payload: string): string {
  try {
    JSON.parse(payload);
  } catch {
    return JSON.stringify(payload); // a text
  }
  // A line break outside of a string is white space, and inside of one JSON does not allow it.
  return payload.replaceAll(/[\r\n]/g, ' ');
}

function channelText(name: string, form: EventForm): string {
  return form === 'sdk' ? name.replaceAll(',', '%2C').replaceAll(/[\r\n]/g, encodeURIComponent) : name;
}
