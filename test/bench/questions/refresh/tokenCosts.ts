const ALGORITHMS = ['Ed25519', 'ES256', 'HS256', 'RS256'] as const;
const ROUNDS = 5;
const TIMES = 500;

/**
 * What signing and verifying one token costs in workerd, by algorithm: a request that does it many times, less one that
 * does it never, by how many times it did. The best round counts: what disturbs one only ever makes it slower.
 */
export async function tokenCosts(url: string): Promise<Record<string, { sign: number; verify: number }>> {
  const timed = async (operation: 'sign' | 'verify', algorithm: string, times: number) => {
    const startMs = performance.now();
    const answer = await fetch(`${url}/${operation}/${algorithm}/${times}`);
    const token = await answer.text();
    const elapsedMs = performance.now() - startMs;
    if (!answer.ok || token.split('.').length !== 3) {
      throw new Error(`${operation} with ${algorithm} answered ${answer.status} ${token.slice(0, 100)}`);
    }
    return elapsedMs;
  };
  const costOf = async (operation: 'sign' | 'verify', algorithm: string) => {
    const best = { many: Infinity, none: Infinity };
    for (let round = 0; round < ROUNDS; round += 1) {
      best.many = Math.min(best.many, await timed(operation, algorithm, TIMES));
      best.none = Math.min(best.none, await timed(operation, algorithm, 0));
    }
    return Math.round(((best.many - best.none) * 1_000) / TIMES);
  };

  const costs: Record<string, { sign: number; verify: number }> = {};
  for (const algorithm of ALGORITHMS) {
    await timed('verify', algorithm, TIMES);
    costs[algorithm] = { sign: await costOf('sign', algorithm), verify: await costOf('verify', algorithm) };
  }
  return costs;
}
