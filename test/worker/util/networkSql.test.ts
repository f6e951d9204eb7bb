import { env } from 'cloudflare:workers';
import { expect, test } from 'vitest';

import { networkOf, parseAddress, textOf } from '../../../src/util/ipAddress';
import { canonicalAddress } from '../../../src/util/identity';
import { NETWORK_OF_ADDRESS } from '../../../src/util/networkSql';

/** What SQL makes of each address. */
async function networksOf(addresses: readonly string[]): Promise<string[]> {
  const { results } = await env.DB.prepare(
    `select ${NETWORK_OF_ADDRESS} as network from (select key, value as address from json_each(?)) order by key`,
  )
    .bind(JSON.stringify(addresses))
    .all<{ network: string }>();
  return results.map(({ network }) => network);
}

// test/support/database/lists.ts has single addresses, on each engine.
test('of 2,000 IPv6 addresses with zeros anywhere, SQL keeps the /48 that the code does', async () => {
  let state = 7;
  const random = (below: number) => (state = (state * 48_271) % 2_147_483_647) % below;
  const group = () => [0, 0, 0, 1, 0xab, 0x2001, random(65_536)][random(7)] ?? 0;
  const addresses = Array.from({ length: 2_000 }, () =>
    // Not 0:0:…, which no client has.
    canonicalAddress(
      [0x2001 + random(0xfff), ...Array.from({ length: 7 }, group)].map((n) => n.toString(16)).join(':'),
    ),
  ).filter((address) => address.includes(':'));
  expect(addresses.length).toBeGreaterThan(1_500);
  const networks = await networksOf(addresses);
  for (const [index, address] of addresses.entries()) {
    const network = networks[index] ?? '';
    expect(network).toMatch(/::\/48$/);
    expect([address, textOf(parseAddress(network.slice(0, -3))!)]).toEqual([
      address,
      textOf({ ...networkOf(parseAddress(address)!, 48), prefixBits: 128 }),
    ]);
  }
});
