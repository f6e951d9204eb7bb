import type { Command } from '../../src/gateway/reply.ts';
import { CRON } from './isolate.ts';
import type { Invocation } from './isolate.ts';
import type { Random } from './random.ts';
import type { SimulatedRedis, WireReply } from './redis.ts';
import type { Scheduler } from './scheduler.ts';

/** What may happen to a call on its way to Redis and back. */
export type NetworkMode =
  /** No server listens. */
  | 'away'
  /** Calls disappear. */
  | 'hang'
  /** Each call for itself: lost before it arrives, lost after it was executed, late, or fine. */
  | 'flaky'
  /** Seconds late, out of order. */
  | 'slow'
  /** Something else replies in Redis's place: a page of HTML, an object, zeros, empty strings, too few replies. */
  | 'garbage'
  /** A proxy that reports errors. */
  | 'status';

const GARBAGE: readonly ((commands: readonly Command[]) => unknown)[] = [
  () => '<html><body>captive portal</body></html>',
  () => ({ result: 'OK' }),
  () => [],
  (commands) => commands.map(() => ({ result: 0 })),
  (commands) => commands.map(() => ({ result: '' })),
  (commands) => commands.map(() => ({ result: ['<html>', 'a', 'b', 'c'] })),
  (commands) => commands.map(() => ({ result: [0, 0, 0, 0] })),
  (commands) => commands.map(() => ({ result: ['', '', '', ''] })),
  (commands) => commands.map(() => ({ result: [1, 1, 0, 0, 0, 0] })),
  (commands) => commands.map(() => ({ result: [null, null, null, null] })),
  (commands) => commands.map(() => ({ result: 'OK' })),
];

export interface NetworkDeps {
  scheduler: Scheduler;
  random: Random;
  redis: SimulatedRedis;
  trace: (line: () => string) => void;
  /** A call took longer than usual, or was lost: until then what it carried is unsettled. */
  unsettled: (kind: 'network', fromMs: number, toMs: number) => void;
  /** An isolate asks although it knows better. */
  inVain: (text: string) => void;
}

/** The way from isolates to Redis and back. */
export class Network {
  mode: NetworkMode | undefined;
  /** The only isolate that the mode concerns. */
  only: number | undefined;
  #sinceMs = 0;
  readonly #deps: NetworkDeps;

  constructor(deps: NetworkDeps) {
    this.#deps = deps;
  }

  /** @param only the one isolate that it concerns */
  begin(mode: NetworkMode, only: number | undefined): void {
    this.mode = mode;
    this.only = only;
    this.#sinceMs = this.#deps.scheduler.nowMs;
  }

  /** What `fetch` returns for a pipeline; never settles for a call that is lost. */
  call(invocation: Invocation, body: string): Promise<unknown> {
    const { scheduler, random } = this.#deps;
    const commands = (JSON.parse(body) as (string | number)[][]).map((command) =>
      command.map(String),
    ) as unknown as Command[];
    const fate = this.#fate(invocation);
    const sentAtMs = scheduler.nowMs;
    const before = random.between(1, 8) + fate.lateMs;
    const back = random.between(1, 8) + fate.lateBackMs;
    if (before + back > USUAL_MS) this.#deps.unsettled('network', sentAtMs, sentAtMs + before + back);
    const who = `${invocation.isolate.name} [${invocation.label}]`;
    this.#judge(invocation, commands);
    return new Promise((resolve, reject) => {
      const arrive = (settle: () => void) => {
        scheduler.after(back, () => {
          if (invocation.open && invocation.isolate.alive) settle();
        });
      };
      scheduler.after(before, () => {
        const mode = fate.outcome;
        if (mode === 'refused') {
          this.#deps.trace(() => `${who} -> Redis: connection refused`);
          return arrive(() => reject(new TypeError('fetch failed')));
        }
        if (mode === 'lost') {
          this.#deps.trace(() => `${who} -> Redis: lost on its way: ${brief(commands)}`);
          return undefined;
        }
        if (mode === 'status') {
          this.#deps.trace(() => `${who} -> Redis: 502`);
          return arrive(() => resolve(responseOf(502, '<html>bad gateway</html>')));
        }
        if (mode === 'garbage') {
          const garbage = fate.garbage?.(commands);
          this.#deps.trace(() => `${who} -> Redis: something else replies ${JSON.stringify(garbage).slice(0, 60)}`);
          return arrive(() =>
            resolve(responseOf(200, typeof garbage === 'string' ? garbage : JSON.stringify(garbage))),
          );
        }
        const replies = this.#deps.redis.run(commands);
        this.#deps.trace(
          () => `${who} -> Redis: ${exchange(commands, replies)}${mode === 'reply-lost' ? ' (reply lost)' : ''}`,
        );
        if (mode === 'reply-lost') return undefined;
        return arrive(() => {
          invocation.replied = { sentMs: sentAtMs, atMs: scheduler.nowMs };
          resolve(responseOf(200, JSON.stringify(replies)));
        });
      });
    });
  }

  /**
   * While Redis is away, an isolate whose probe has failed asks with its next probe, and not before. A delivery that was under way then,
   * and has had a reply since, goes on until a call of its own fails.
   */
  #judge({ isolate, label, replied }: Invocation, commands: readonly Command[]): void {
    const isAway = this.mode === 'away' || this.mode === 'hang' || this.mode === 'status';
    const concerned = this.only === undefined || this.only === isolate.index;
    if (!isAway || !concerned || isolate.probeFailedAtMs <= this.#sinceMs) return;
    if (replied !== undefined && replied.sentMs < isolate.probeFailedAtMs && replied.atMs >= isolate.probeFailedAtMs)
      return;
    if (label === CRON || String(commands[0]?.[0]) === 'PING') return;
    this.#deps.inVain(`${isolate.name} [${label}] asks Redis (${brief(commands)}), though its last probe has failed`);
  }

  #fate({ isolate }: Invocation): Fate {
    const { random } = this.#deps;
    const fine: Fate = { outcome: 'fine', lateMs: 0, lateBackMs: 0 };
    switch (this.only === undefined || this.only === isolate.index ? this.mode : undefined) {
      case undefined:
        return fine;
      case 'away':
        return { ...fine, outcome: 'refused' };
      case 'hang':
        return { ...fine, outcome: 'lost' };
      case 'status':
        return { ...fine, outcome: 'status' };
      case 'garbage':
        return { ...fine, outcome: 'garbage', garbage: random.pick(GARBAGE) };
      case 'slow':
        return { ...fine, lateMs: random.between(0, 1_500), lateBackMs: random.between(0, 1_500) };
      case 'flaky': {
        const outcome = random.pick(['fine', 'fine', 'lost', 'reply-lost', 'refused', 'late'] as const);
        return outcome === 'late' ? { ...fine, lateMs: random.between(100, 5_000) } : { ...fine, outcome };
      }
    }
  }
}

interface Fate {
  outcome: 'fine' | 'refused' | 'lost' | 'reply-lost' | 'status' | 'garbage';
  lateMs: number;
  lateBackMs: number;
  garbage?: (commands: readonly Command[]) => unknown;
}

/** Two ways of at most 8 ms. */
const USUAL_MS = 16;

/** As much of a `Response` as Upstash's client looks at. */
function responseOf(status: number, text: string): object {
  return { ok: status === 200, status, headers: new Headers(), text: async () => text };
}

function exchange(commands: readonly Command[], replies: readonly WireReply[]): string {
  return commands
    .map((command, index) => `${brief([command])} = ${JSON.stringify(replies[index]).slice(0, 60)}`)
    .join('; ');
}

function brief(commands: readonly Command[]): string {
  return commands
    .map((command) =>
      command
        .map((part) => shorten(String(part)))
        .join(' ')
        .slice(0, 140),
    )
    .join('; ');
}

/** A script's name is its hash: eight digits identify it. */
function shorten(part: string): string {
  if (part.includes('\n')) return '(script)';
  return /^[0-9a-f]{40}$/.test(part) ? part.slice(0, 8) : part;
}
