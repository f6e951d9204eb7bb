/*
 * What the Redis users behind the gateway need, as `ACL SETUSER` takes it. A list of names in the gateway cannot say what
 * a script does inside; Redis's own ACLs do, since Redis asks them for every command of a script.
 */

/** Commands of Redis's category "dangerous" or "admin" that are about data, or that the gateway itself needs. */
const DATA_AFTER_ALL = 'flushall flushdb info keys lastsave restore role sort sort_ro'.split(' ');
/** What the gateway asks to find its way in a cluster, to end scripts that run too long, and to name its user. */
const OWN_NEEDS = ['+cluster|slots', '+cluster|nodes', '+script|kill', '+function|kill', '+acl|whoami'];

/** For the full token: everything that concerns data, and nothing that administers the server. */
export const FULL_RULES: readonly string[] = [
  '~*',
  '&*',
  '+@all',
  '-@admin',
  '-@dangerous',
  // A script could read another database with SELECT.
  '-select',
  ...DATA_AFTER_ALL.map((name) => `+${name}`),
  ...OWN_NEEDS,
];

/** For the read-only token: what reads, scripts and functions included, and subscriptions. */
export const READ_ONLY_RULES: readonly string[] = [
  '~*',
  '&*',
  '-@all',
  '+@read',
  ...'ping echo time info role lastsave command lolwut multi exec discard asking eval_ro evalsha_ro fcall_ro'
    .split(' ')
    .map((name) => `+${name}`),
  ...'pubsub subscribe unsubscribe psubscribe punsubscribe'.split(' ').map((name) => `+${name}`),
  ...OWN_NEEDS,
];

/** Names of users in the lines to paste. */
export const USERS = { full: 'gateway', readOnly: 'gateway_ro' } as const;

/**
 * The two lines to paste into redis-cli, with a password to replace.
 * @param selects whether the address names a database, which the gateway then has to SELECT
 */
export function aclLines(selects = false): [full: string, readOnly: string] {
  const line = (user: string, rules: readonly string[]) =>
    `ACL SETUSER ${user} on >A-PASSWORD-OF-ITS-OWN ${rules.join(' ')}${selects ? ' +select' : ''}`;
  return [line(USERS.full, FULL_RULES), line(USERS.readOnly, READ_ONLY_RULES)];
}
