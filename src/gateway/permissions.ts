import type { Backend } from './backend.ts';
import { FULL_RULES } from './acl.ts';
import { isRefusedByName } from './commands.ts';
import { type Command, JSON_SHAPE, type Reply } from './reply.ts';

/** What the Redis user behind the gateway may do beyond data commands. */
export interface Permissions {
  user: string;
  /** Commands that administer the server, and that a client can run from inside a script. */
  inScripts: string[];
  /** Further ones, which scripts cannot run and the gateway refuses by their names. */
  refusedByGateway: string[];
  /** Commands that write. */
  writes: string[];
}

/** Asked about with so many at a time: Lua has room for some thousand arguments. */
const BATCH = 200;

/**
 * Asks Redis what the user that runs this script may do. It runs none of these commands: `redis.acl_check_cmd` only checks the
 * user's rights (Redis 7 and later, https://redis.io/docs/latest/develop/programmability/lua-api/#redis.acl_check_cmd).
 * ARGV: commands, their arguments separated by spaces. Returns 1 (may), 0 (may not) for each.
 */
const ASK = `
local out = {}
for i, line in ipairs(ARGV) do
  local args = {}
  for word in string.gmatch(line, '%S+') do args[#args + 1] = word end
  local ok, may = pcall(redis.acl_check_cmd, unpack(args))
  out[i] = ok and may and 1 or 0
end
return out`;

interface Candidate {
  /** `CLUSTER MEET` */
  name: string;
  /** With as many arguments as it needs. */
  line: string;
  noScript: boolean;
  administers: boolean;
  writes: boolean;
}

/**
 * Asks Redis what the gateway's user may do.
 * @returns `undefined` without a reply of use: Redis is away, older than 7, or the user may not run scripts
 */
export async function readPermissions(backend: Backend): Promise<Permissions | undefined> {
  const ask = async (command: Command) => (await backend.run([command], JSON_SHAPE))[0]!;
  const table = await ask(['COMMAND']);
  if (!Array.isArray(table)) return undefined;
  const candidates = table.flatMap((entry) => candidatesOf(entry as Reply[]));
  const allowed: Candidate[] = [];
  for (let start = 0; start < candidates.length; start += BATCH) {
    const batch = candidates.slice(start, start + BATCH);
    const replies = await ask(['EVAL_RO', ASK, '0', ...batch.map(({ line }) => line)]);
    if (!Array.isArray(replies)) return undefined;
    allowed.push(...batch.filter((_, i) => replies[i] === '1'));
  }
  const who = await ask(['ACL', 'WHOAMI']);
  const namesOf = (keep: (candidate: Candidate) => boolean) =>
    allowed
      .filter(keep)
      .map(({ name }) => name)
      .sort();
  return {
    user: Buffer.isBuffer(who) ? String(who) : 'unknown',
    inScripts: namesOf(({ administers, noScript }) => administers && !noScript),
    refusedByGateway: namesOf(({ administers, noScript }) => administers && noScript),
    writes: namesOf(({ writes }) => writes),
  };
}

/** Commands that are in the category "dangerous" or "admin" and are still about data. */
const ABOUT_DATA = new Set(FULL_RULES.filter((rule) => /^\+\w/.test(rule)).map((rule) => rule.slice(1).toUpperCase()));
/** In neither category, and yet beyond the data that the gateway is for: another database. */
const BEYOND = new Set(['SELECT', 'SLOWLOG']);

/** A command, or the subcommands of a container, as `COMMAND` describes them. */
function candidatesOf(entry: Reply[]): Candidate[] {
  const [fullName, arity, flags, , , , categories, , , subcommands] = entry;
  const name = String(fullName).toUpperCase().replace('|', ' ');
  if (Array.isArray(subcommands) && subcommands.length > 0) {
    return subcommands.flatMap((sub) => candidatesOf(sub as Reply[]));
  }
  const has = (words: Reply | undefined, word: string) => Array.isArray(words) && words.some((w) => String(w) === word);
  const container = name.split(' ')[0]!;
  const isAdmin = has(categories, '@admin') || has(categories, '@dangerous') || BEYOND.has(container);
  const administers = isAdmin && !ABOUT_DATA.has(name) && !name.endsWith(' HELP');
  const writes = has(flags, 'write') && !isRefusedByName(name);
  if (!administers && !writes) return [];
  const missing = Math.max(0, Math.abs(Number(arity)) - name.split(' ').length);
  const line = [name, ...Array.from({ length: missing }, () => '1')].join(' ');
  return [{ name, line, administers, writes, noScript: has(flags, 'noscript') }];
}
