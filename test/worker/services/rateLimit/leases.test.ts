import { expect, test } from 'vitest';

import { rateLimitRecord } from '../../../../src/redis/scripts/rateLimitRecord';
import { ask, recordArguments, requestId } from '../../../../src/services/rateLimit/ask';
import { slidingWindow } from '../../../../src/services/rateLimit/limits';
import { clockedClient, randomOf, worstWindow } from '../../support/limits';
import type { Spent } from '../../support/limits';
import { inRequest, isolateFor } from '../../support/request';

const START_MS = 1_800_000_000_000;

/** Units that an isolate holds, to be spent until the end of the lease. */
interface Lease {
  left: number;
  recordedAtMs: number;
  endsAtMs: number;
}

/**
 * A grant is checked with the window that begins W before it, and recorded at the end of the lease. No window can exceed L
 * then: of any window with a use in it, take the last grant with a use in it; every other use in that window is recorded
 * later than W before that grant, so its check has counted them all.
 */
test.each([
  [12, 2_000, 300],
  [150, 3_000, 500],
])('leases over five isolates never exceed %d in %d ms', async (maxRequests, windowMs, leaseMs) => {
  const limits = [slidingWindow(maxRequests, windowMs)];
  let nowMs = START_MS;
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(600_000);
      let leased = 0;
      for (let seed = 1; seed <= 10; seed += 1) {
        const random = randomOf(seed);
        const key = `leases:{${requestId()}}`;
        const held: (Lease | undefined)[] = Array.from({ length: 5 }, () => undefined);
        const spent: Spent[] = [];
        for (let step = 0; step < 250; step += 1) {
          nowMs += random(random(Math.ceil((20 * windowMs) / maxRequests / 5)) + 1);
          const isolate = random(5);
          const lease = held[isolate];
          if (lease !== undefined && (lease.endsAtMs <= nowMs || (lease.left > 0 && random(10) === 0))) {
            // Over, or given up early: what was not used goes back to where it is recorded.
            held[isolate] = undefined;
            if (lease.left > 0) {
              const back = [{ time: lease.recordedAtMs, units: -lease.left, id: requestId() }];
              await batch.run(rateLimitRecord, [key], recordArguments(limits, nowMs, back));
            }
            continue;
          }
          if (lease !== undefined && lease.left > 0) {
            lease.left -= 1;
            spent.push({ atMs: nowMs, units: 1 });
            continue;
          }
          const aheadMs = random(3) === 0 ? 0 : leaseMs;
          const units = aheadMs === 0 ? 1 : 1 + random(4);
          const options = { id: requestId(), reserveMs: 0, nowMs, aheadMs };
          const { decision, replies } = await ask(batch, [{ key, limits, cost: units }], options);
          if (decision !== 'admitted') continue;
          spent.push({ atMs: nowMs, units: 1 });
          if (units === 1) continue;
          leased += 1;
          held[isolate] = {
            left: units - 1,
            recordedAtMs: replies[0]!.atMs + aheadMs,
            endsAtMs: nowMs + leaseMs,
          };
        }
        expect(worstWindow(spent, windowMs), `seed ${seed}`).toBeLessThanOrEqual(maxRequests);
      }
      expect(leased).toBeGreaterThan(50);
    },
    { isolate: isolateFor(undefined, { client: clockedClient() }) },
  );
});
