/*
 * The rights of the Redis users behind the gateway, as arguments of `ACL SETUSER`. A list of command names in the gateway
 * cannot restrict the commands inside a script; Redis checks its own ACLs for every command of a script.
 */

/** Commands of Redis's category "dangerous" or "admin" that are about data, or that the gateway itself needs. */
const DATA_AFTER_ALL = 'flushall flushdb info keys lastsave restore role sort sort_ro'.split(' ');
/** Commands of the gateway itself: to read a cluster's topology, to kill scripts that run too long, to name its user. */
const OWN_NEEDS = ['+cluster|slots', '+cluster|nodes', '+script|kill', '+function|kill', '+acl|whoami'];

/** For the full token: all commands on data, and none that administers the server. */
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

/** For the read-only token: commands that read, also in scripts and functions, and subscriptions. */
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
