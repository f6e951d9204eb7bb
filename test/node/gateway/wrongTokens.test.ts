import { describe, expect, it } from 'vitest';
import { WrongTokens } from '../../../src/gateway/wrongTokens.ts';

function counter(limit: number) {
  const seconds: [wrong: number, refused: number][] = [];
  const wrongTokens = new WrongTokens(limit, (wrong, refused) => seconds.push([wrong, refused]));
  /** How many of `times` requests are over the limit. */
  const over = (address: string, times: number, atMs: number) =>
    Array.from({ length: times }, () => wrongTokens.isOver(address, atMs)).filter(Boolean).length;
  return { seconds, over };
}

describe('WrongTokens', () => {
  it('lets exactly the limit of each address pass in a second, and begins anew with the next', () => {
    const { seconds, over } = counter(5);
    expect(over('192.0.2.1', 12, 1_000)).toBe(7);
    expect(over('192.0.2.2', 5, 1_999)).toBe(0);
    expect(over('192.0.2.1', 5, 2_000)).toBe(0);
    expect(seconds).toEqual([[17, 7]]);
    expect(over('192.0.2.1', 1, 2_500)).toBe(1);
  });

  it('takes a /64 of IPv6 for one client', () => {
    const { over } = counter(5);
    expect(over('2001:db8:0:1::1', 5, 1_000)).toBe(0);
    expect(over('2001:db8:0:1:ffff::2', 1, 1_000)).toBe(1);
    expect(over('2001:db8:0:2::1', 5, 1_000)).toBe(0);
    expect(over('2001:db8::1', 5, 1_000)).toBe(0);
    expect(over('2001:db8::ffff:2', 1, 1_000)).toBe(1);
    expect(over('2001:db8:0:0:5::', 1, 1_000)).toBe(1);
    expect(over('::ffff:192.0.2.7', 5, 1_000)).toBe(0);
    expect(over('::ffff:192.0.2.8', 5, 1_000)).toBe(0);
  });

  it('counts further addresses together once there are too many of them', () => {
    const { over } = counter(1);
    for (let i = 0; i < 10_000; i++) expect(over(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, 1, 1_000)).toBe(0);
    expect(over('192.0.2.1', 1, 1_000)).toBe(0);
    expect(over('192.0.2.2', 1, 1_000)).toBe(1);
  });
});
