/** Commands that the engine runs for its connections, or for this count itself. */
const HOUSEKEEPING = new Set(['info', 'ping', 'hello', 'client', 'auth', 'select', 'config', 'command']);

/**
 * How many commands the engine has run since it started, those that scripts run included: `INFO commandstats`, asked
 * through the gateway. Housekeeping is left out.
 */
export async function commandsRun(redis: { url: string; token: string }): Promise<number> {
  const answer = await fetch(redis.url, {
    method: 'POST',
    headers: { Authorization: `Bearer ${redis.token}` },
    body: JSON.stringify(['INFO', 'commandstats']),
  });
  const { result, error } = (await answer.json()) as { result?: string; error?: string };
  if (result === undefined) throw new Error(`the engine does not count its commands: ${error ?? answer.status}`);
  let total = 0;
  for (const [, name = '', calls] of result.matchAll(/^cmdstat_([^:|]+)(?:\|[^:]+)?:calls=(\d+)/gm)) {
    if (!HOUSEKEEPING.has(name)) total += Number(calls);
  }
  return total;
}
