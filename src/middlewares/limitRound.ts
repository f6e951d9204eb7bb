import type { Context } from 'hono';
import { matchedRoutes } from 'hono/route';

import { RateLimitService } from '../services/rateLimit.service';
import type { RateLimitDecision, RateLimitRequest } from '../services/rateLimit.service';
import type { AppEnv } from './services.middleware';

/** One limiter's part in a round. */
export interface RoundMember {
  request: RateLimitRequest;
  /** The error that a refusal by this limiter ends the request with. */
  refuse: (decision: RateLimitDecision & { allowed: false }) => Error;
}

/**
 * The limiters that decide over one request together: all of one guard. They are asked in one call, so that a request
 * which one of them refuses is charged to none.
 */
export class LimitRound {
  readonly routeIndex: number;
  /** Limiters that came before on the same route. */
  readonly first: number;
  #count = 0;
  readonly #members: RoundMember[] = [];
  #decisions: Promise<RateLimitDecision[]> | undefined;

  private constructor(routeIndex: number, first: number) {
    this.routeIndex = routeIndex;
    this.first = first;
  }

  /** The round that this request's guard collects, a new one where the last has been asked. */
  static of(c: Context<AppEnv>): LimitRound {
    const last = rounds.get(c);
    const { routeIndex } = c.req;
    if (last?.routeIndex === routeIndex && last.#decisions === undefined) return last;
    const round = new LimitRound(routeIndex, last?.routeIndex === routeIndex ? last.first + last.#count : 0);
    rounds.set(c, round);
    return round;
  }

  /** Which limiter of its route this one is: 0 for the first. The same for every request that comes this way. */
  position(): number {
    const position = this.first + this.#count;
    this.#count += 1;
    return position;
  }

  join(member: RoundMember): void {
    this.#members.push(member);
  }

  /** Asks about all members, once, and tells this one's decision. @throws {Error} the refusal that ends the request */
  async decide(member: RoundMember): Promise<RateLimitDecision & { allowed: true }> {
    const decisions = await this.ask();
    const own = decisions[this.#members.indexOf(member)];
    if (own === undefined) throw new Error('a limiter was decided that had not joined');
    if (own.allowed) return own;
    // Another limit has refused: the request is over, also where a check stands between the two.
    const which = own.reason === 'together' ? decisions.findIndex(isRefusal) : this.#members.indexOf(member);
    const decision = decisions[which];
    if (decision === undefined || decision.allowed) throw new Error('a request was refused by no limit');
    throw (this.#members[which] ?? member).refuse(decision);
  }

  ask(): Promise<RateLimitDecision[]> {
    this.#decisions ??= RateLimitService.consumeAll(this.#members.map(({ request }) => request));
    return this.#decisions;
  }
}

const rounds = new WeakMap<Context, LimitRound>();

function isRefusal(decision: RateLimitDecision): boolean {
  return !decision.allowed && decision.reason !== 'together';
}

/** Names of routes, by Hono's own objects for them. */
const places = new WeakMap<object, string>();

/**
 * The name of the place at which a limiter is mounted: its route's method and pattern, such as `GET /v1/users/:id`, and
 * which handler of that route and which limiter of that handler it is, where it is not the first. The same in each
 * isolate, and until the routes are changed.
 */
export function placeOf(c: Context<AppEnv>, position: number): string {
  const routes = matchedRoutes(c);
  const route = routes[c.req.routeIndex];
  if (route === undefined) return position === 0 ? 'all' : `all.${position + 1}`;
  let place = places.get(route);
  if (place === undefined) {
    const { method, path } = route;
    const before = routes.slice(0, c.req.routeIndex);
    const earlier = before.filter((other) => other.method === method && other.path === path).length;
    // Printable, and without the braces that would move a key to another slot.
    place = `${method} ${encodeURI(path)}${earlier === 0 ? '' : ` #${earlier + 1}`}`;
    places.set(route, place);
  }
  return position === 0 ? place : `${place}.${position + 1}`;
}
