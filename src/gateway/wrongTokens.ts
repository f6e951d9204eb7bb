import { isIPv6 } from 'node:net';

/** Addresses that are counted at a time: an attacker with more of them than that shares one count. */
const MAX_ADDRESSES = 10_000;

/**
 * Counts requests with a wrong token or none, by the client's address and second. A valid token is never counted and
 * never refused: a stranger behind the same proxy must not be able to lock its clients out. Guessing is made hopeless
 * by the length of the tokens; this bound keeps strangers from costing much.
 */
export class WrongTokens {
  readonly #limitPerSecond: number;
  readonly #counts = new Map<string, number>();
  readonly #onSecond: (wrong: number, refused: number) => void;
  #second = 0;
  #wrong = 0;
  #refused = 0;

  /** @param onSecond called for each second in which there were any, once it is over and the next one is counted */
  constructor(limitPerSecond: number, onSecond: (wrong: number, refused: number) => void) {
    this.#limitPerSecond = limitPerSecond;
    this.#onSecond = onSecond;
  }

  /** Counts one. @returns whether the address has reached its limit for this second */
  isOver(address: string | undefined, nowMs = Date.now()): boolean {
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) this.#begin(second);
    const name = this.#counts.size < MAX_ADDRESSES ? network(address ?? '') : '';
    const count = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, count);
    this.#wrong += 1;
    const over = count > this.#limitPerSecond;
    if (over) this.#refused += 1;
    return over;
  }

  #begin(second: number): void {
    if (this.#wrong > 0) this.#onSecond(this.#wrong, this.#refused);
    this.#counts.clear();
    this.#second = second;
    this.#wrong = 0;
    this.#refused = 0;
  }
}

/** One IPv6 client has a whole /64 of addresses: their first four groups, where `::` stands for groups of zeros. */
function network(address: string): string {
  if (!isIPv6(address) || address.startsWith('::ffff:')) return address;
  const groupsOf = (text: string | undefined) => (text ? text.split(':') : []);
  const [head, tail] = address.split('::');
  const [front, back] = [groupsOf(head), groupsOf(tail)];
  const zeros = Array.from({ length: Math.max(0, 8 - front.length - back.length) }, () => '0');
  return [...front, ...zeros, ...back].slice(0, 4).join(':');
}
