/** A Redis command as it travels in a request's body. */
export type WireCommand = readonly (string | number)[];

/** Which requests a fault meets, and how many of them. */
export interface Aim {
  /** Requests that hold such a command; of a slot's error: these commands alone. @default all */
  when?: (command: WireCommand) => boolean;
  /** After this many requests everything is well again. @default without end */
  times?: number;
}

/** One way in which Redis, or what lies before it, goes wrong. */
export type Fault =
  | { kind: 'none' }
  /** No server listens. Open connections are cut. */
  | { kind: 'refuse' }
  /** The request is taken, gets no response, and is not executed. */
  | ({ kind: 'hang' } & Aim)
  /** Executed; the response's head and half of its body arrive, and then nothing. */
  | ({ kind: 'stall' } & Aim)
  /** Executed; the right response comes late. */
  | ({ kind: 'delay'; ms: number } & Aim)
  /** The connection is cut, and nothing was executed. */
  | ({ kind: 'drop-before' } & Aim)
  /** The connection is cut when everything was executed. */
  | ({ kind: 'drop-after' } & Aim)
  /** Something else responds in its place; nothing is executed. */
  | ({ kind: 'answer'; status: number; body: string; type?: string } & Aim)
  /** Something else happens first, such as the server's death; then it is executed, if it still can be. */
  | ({ kind: 'meanwhile'; act: () => Promise<unknown> } & Aim)
  /** Executed, but the response's text is changed on its way. */
  | ({ kind: 'rewrite'; rewrite: (text: string) => string } & Aim)
  /** These commands are refused with Redis's error text, and not executed; the others are. */
  | ({ kind: 'slot'; error: string } & Aim);

const nameOf = (command: WireCommand) => String(command[0]).toUpperCase();
const READS = new Set(['GET', 'MGET', 'HGET', 'HMGET', 'HGETALL', 'PING', 'PTTL', 'TTL', 'SCAN', 'CONFIG', 'TIME']);

/** Anything that may write: a replica, or a server without memory, refuses these alone. */
export const writes = (command: WireCommand): boolean => !READS.has(nameOf(command));

/** Commands of this name, with an argument that contains the text. */
export const command =
  (name: string, text = '') =>
  (given: WireCommand): boolean =>
    nameOf(given) === name.toUpperCase() && given.some((part) => String(part).includes(text));

/** Script calls, by SHA or by text, that touch a key (or take an argument) with this text in it. */
export const script =
  (text: string) =>
  (given: WireCommand): boolean =>
    command('EVALSHA', text)(given) || command('EVAL', text)(given);

const json = (status: number, body: unknown): Fault => ({
  kind: 'answer',
  status,
  body: JSON.stringify(body),
  type: 'application/json',
});

const rewriteSlots = (change: (slots: unknown[]) => unknown): Fault => ({
  kind: 'rewrite',
  rewrite: (text) => {
    const body: unknown = JSON.parse(text);
    return JSON.stringify(Array.isArray(body) ? change(body) : change([body]));
  },
});

/** Every fault of the kit by name, each with what servers, proxies and networks really send. */
export const FAULTS = {
  refused: { kind: 'refuse' },
  hanging: { kind: 'hang' },
  'hanging after half an answer': { kind: 'stall' },
  'slower than every deadline': { kind: 'delay', ms: 1_400 },
  'dropped before executing': { kind: 'drop-before' },
  'dropped after executing': { kind: 'drop-after' },
  'status 500': json(500, { error: 'ERR internal error' }),
  'status 502 with HTML': {
    kind: 'answer',
    status: 502,
    body: '<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>',
    type: 'text/html',
  },
  'status 429': json(429, { error: 'ERR max requests limit exceeded' }),
  'status 401': json(401, { error: 'WRONGPASS invalid or missing auth token' }),
  '200 with HTML': {
    kind: 'answer',
    status: 200,
    body: '<html>Please sign in to this Wi-Fi</html>',
    type: 'text/html',
  },
  null: json(200, null),
  'an empty body': { kind: 'answer', status: 200, body: '' },
  'truncated JSON': { kind: 'rewrite', rewrite: (text) => text.slice(0, Math.ceil(text.length / 2)) },
  'one object for all results': json(200, { result: 'OK' }),
  'results that are no objects': rewriteSlots((slots) => slots.map(() => 1)),
  'results of another type': rewriteSlots((slots) => slots.map(() => ({ result: 'OK' }))),
  'results that are all null': rewriteSlots((slots) => slots.map(() => ({ result: null }))),
  'too few results': rewriteSlots((slots) => slots.slice(0, -1)),
  LOADING: { kind: 'slot', error: 'LOADING Redis is loading the dataset in memory' },
  READONLY: { kind: 'slot', error: "READONLY You can't write against a read only replica.", when: writes },
  OOM: { kind: 'slot', error: "OOM command not allowed when used memory > 'maxmemory'.", when: writes },
  NOSCRIPT: { kind: 'slot', error: 'NOSCRIPT No matching script. Please use EVAL.', when: command('EVALSHA') },
  MOVED: { kind: 'slot', error: 'MOVED 3999 127.0.0.1:6381', when: (given) => nameOf(given) !== 'PING' },
} as const satisfies Record<string, Fault>;

export type FaultName = keyof typeof FAULTS;
