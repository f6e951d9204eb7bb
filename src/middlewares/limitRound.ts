import type { Context } from 'hono';
import { matchedRoutes } from 'hono/route';

import { unavailable } from '../errors';
import { LimitOverrideService } from '../services/limitOverride.service';
import { RateLimitService } from '../services/rateLimit.service';
import type { RateLimitDecision, RateLimitRequest } from '../services/rateLimit.service';
import { PerRequest } from './perRequest';
import type { LimitRefusal } from './rateLimitHeaders';
import type { AppEnv } from './services.middleware';

/** One limiter's part in a round. */
export interface RoundMember {
  request: RateLimitRequest;
  /** Puts the current numbers into `request`. @returns whether they have changed */
  renew: () => boolean;
  /** The error for a refusal by this limiter, and by others of the round. */
  refuse: (refusals: readonly LimitRefusal[]) => Error;
}

/**
 * The limiters of one guard, which decide about a request in one call, so that a request that one of them refuses is charged
 * to none.
 */
export class LimitRound {
  readonly routeIndex: number;
  /** Number of limiters before this round on the same route. */
  readonly first: number;
  #count = 0;
  readonly #members: RoundMember[] = [];
  #decisions: Promise<RateLimitDecision[]> | undefined;
  #recalled: (() => RateLimitDecision)[] | undefined;
  #isDecided = false;

  private constructor(routeIndex: number, first: number) {
    this.routeIndex = routeIndex;
    this.first = first;
  }

  /** The request's current round; a new one once the last round has been sent to Redis. */
  static of(c: Context<AppEnv>): LimitRound {
    const last = rounds.get(c);
    const { routeIndex } = c.req;
    if (last?.routeIndex === routeIndex && !last.#isDecided) return last;
    const round = new LimitRound(routeIndex, last?.routeIndex === routeIndex ? last.first + last.#count : 0);
    rounds.set(c, round);
    return round;
  }

  /** This limiter's index on its route, from 0; the same for every request of the route. */
  position(): number {
    const position = this.first + this.#count;
    this.#count += 1;
    return position;
  }

  join(member: RoundMember): void {
    this.#members.push(member);
  }

  /** Asks Redis about all members, once, and returns this member's decision. @throws {Error} the refusal that ends the request */
  async decide(member: RoundMember): Promise<RateLimitDecision & { allowed: true }> {
    const decisions = await this.ask();
    const own = decisions[this.#members.indexOf(member)];
    if (own === undefined) throw new Error('a limiter was decided that had not joined');
    if (own.allowed) return own;
    // Another limit has refused, so the request ends here, even if a check stands between the two.
    const which = own.reason === 'together' ? decisions.findIndex(isRefusal) : this.#members.indexOf(member);
    const decision = decisions[which];
    if (decision === undefined || decision.allowed) throw new Error('a request was refused by no limit');
    if (decision.reason === 'unavailable') throw unavailable('The rate limiter');
    const refusals = this.#members.flatMap(({ request: { policy } }, index): LimitRefusal[] => {
      const other = decisions[index]!;
      return other.allowed || other.reason !== 'limit' ? [] : [{ policy, ...other }];
    });
    throw (this.#members[which] ?? member).refuse(refusals);
  }

  /** The refusal of a member that this isolate knows to be refused, with what it knows of the others. */
  known(member: RoundMember): Error | undefined {
    const block = blockOf(member);
    if (block === undefined) return undefined;
    const refusals = this.#members.flatMap((other): LimitRefusal[] => {
      const found = other === member ? block : blockOf(other);
      return found === undefined ? [] : [{ policy: other.request.policy, ...found }];
    });
    return member.refuse(refusals);
  }

  /** @param withinMs for how long units may be leased for the caller's next requests */
  ask(withinMs = 0): Promise<RateLimitDecision[]> {
    this.#isDecided = true;
    if (this.#decisions === undefined) {
      // Joins the pipeline of the limits.
      const refreshed = LimitOverrideService.refresh();
      const decisions = RateLimitService.consumeAll(this.#requests(), withinMs);
      this.#decisions = refreshed === undefined ? decisions : this.#decideAgain(refreshed, decisions);
    }
    return this.#decisions;
  }

  /** This member's decision from leased units; `undefined` when they do not pay for all members. */
  recall(member: RoundMember, withinMs: number): (() => RateLimitDecision) | undefined {
    // An administrator may have set other numbers: ask for them together with the limits.
    if (LimitOverrideService.isOld()) return undefined;
    this.#recalled ??= RateLimitService.recall(this.#requests(), withinMs);
    const decide = this.#recalled?.[this.#members.indexOf(member)];
    if (decide === undefined) return undefined;
    return () => {
      this.#isDecided = true;
      return decide();
    };
  }

  #requests(): RateLimitRequest[] {
    return this.#members.map(({ request }) => request);
  }

  /**
   * An administrator may have set other numbers since this isolate last asked: then those decide, and the first charge is given
   * back. Every request that was decided by the old numbers comes here, whichever request fetched the new ones.
   */
  async #decideAgain(refreshed: Promise<void>, decisions: Promise<RateLimitDecision[]>) {
    const [made] = await Promise.all([decisions, refreshed]);
    const asked = this.#requests();
    const renewed = this.#members.filter((member) => member.renew());
    if (renewed.length === 0) return made;
    await Promise.all(
      asked.map(async ({ cost = 1 }, index) => {
        const decision = made[index];
        if (decision?.allowed !== true) return;
        if (decision.undo === undefined) decision.settle(-cost);
        else await decision.undo();
      }),
    );
    return RateLimitService.consumeAll(this.#requests());
  }
}

const blockOf = ({ request: { policy, identity, cost } }: RoundMember) =>
  RateLimitService.block(policy, identity, cost);

const rounds = new PerRequest<LimitRound>();

function isRefusal(decision: RateLimitDecision): boolean {
  return !decision.allowed && decision.reason !== 'together';
}

/** @param earlier number of handlers before it on the route  @param position number of limiters before it in the handler */
export function placeName(
  { method, path }: { method: string; path: string },
  earlier: number,
  position: number,
): string {
  // Printable, and without the braces that would move a key to another slot.
  const place = `${method} ${encodeURI(path)}${earlier === 0 ? '' : ` #${earlier + 1}`}`;
  return position === 0 ? place : `${place}.${position + 1}`;
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
    const before = routes.slice(0, c.req.routeIndex);
    const earlier = before.filter((other) => other.method === route.method && other.path === route.path).length;
    place = placeName(route, earlier, 0);
    places.set(route, place);
  }
  return position === 0 ? place : `${place}.${position + 1}`;
}
