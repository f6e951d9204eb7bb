import { describe, expect, test } from 'vitest';

import { RedisReplyError, RedisUnavailable } from '../../../src/redis/errors';
import { isTooLarge, replyError } from '../../../src/redis/replyError';

const SHA = 'e0e1f9fabfc9d4800c877a703b823ac0578ff8db';
/** Redis 6 names the script before the error, and the line twice when the error is the server's own. */
const six = (text: string) =>
  `ERR Error running script (call to f_${SHA}): @user_script:1: @user_script: 1: -${text}  `;
/** An error of a command that the script called. */
const sixCalled = (text: string) => `ERR Error running script (call to f_${SHA}): @user_script:1: ${text}`;
/** Redis 7 and later, and Valkey, name it behind the error. */
const seven = (text: string) => `${text} script: ${SHA}, on @user_script:1.`;

const READONLY = "READONLY You can't write against a read only replica.";
const OOM = "OOM command not allowed when used memory > 'maxmemory'.";
const MISCONF_6 =
  'MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk. Commands that ' +
  'may modify the data set are disabled, because this instance is configured to report errors during writes if RDB ' +
  'snapshotting fails (stop-writes-on-bgsave-error option).';
const MISCONF_7 = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.";
const MISCONF_VALKEY =
  "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.";
const NOREPLICAS = 'NOREPLICAS Not enough good replicas to write.';
const MASTERDOWN = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
const BUSY = (name: string) =>
  `BUSY ${name} is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.`;

/** What a server says when it cannot serve at present. */
const STATE: [servers: string, text: string, code: string][] = [
  ['Redis 6.0 to 8', 'LOADING Redis is loading the dataset in memory', 'LOADING'],
  ['Valkey 8 and 9', 'LOADING Valkey is loading the dataset in memory', 'LOADING'],
  ['all', READONLY, 'READONLY'],
  ['Redis 6, in a script', six(READONLY), 'READONLY'],
  ['Redis 6, returned by a pcall', `@user_script: 1: -${READONLY}  `, 'READONLY'],
  ['Redis 7 to 8 and Valkey, in a script', seven(READONLY), 'READONLY'],
  [
    'Redis 7 to 8 and Valkey, a script with a shebang',
    'READONLY Can not run script with write flag on readonly replica',
    'READONLY',
  ],
  ['all', OOM, 'OOM'],
  ['Redis 6, in a script', six(OOM), 'OOM'],
  ['Redis 7 to 8 and Valkey, in a script', seven(OOM), 'OOM'],
  [
    'Redis 7 to 8 and Valkey, a script with a shebang',
    "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
    'OOM',
  ],
  ['Redis 6', MISCONF_6, 'MISCONF'],
  ['Redis 6, in a script', six(MISCONF_6), 'MISCONF'],
  ['Redis 7 to 8', MISCONF_7, 'MISCONF'],
  ['Redis 7 to 8, in a script', seven(MISCONF_7), 'MISCONF'],
  ['Valkey 8 and 9', MISCONF_VALKEY, 'MISCONF'],
  ['Valkey 8 and 9, in a script', seven(MISCONF_VALKEY), 'MISCONF'],
  ['all', 'MISCONF Errors writing to the AOF file: No space left on device', 'MISCONF'],
  ['Redis 6, in a script', six('MISCONF Errors writing to the AOF file: No space left on device'), 'MISCONF'],
  ['Redis 7 to 8', 'MISCONF Redis is configured to persist data to AOF, but it cannot', 'MISCONF'],
  ['all', MASTERDOWN, 'MASTERDOWN'],
  ['Redis 7 to 8 and Valkey, a script', 'MASTERDOWN Link with MASTER is down, can not run script', 'MASTERDOWN'],
  ['all', NOREPLICAS, 'NOREPLICAS'],
  ['Redis 6, in a script', six(NOREPLICAS), 'NOREPLICAS'],
  ['Redis 7 to 8 and Valkey, in a script', seven(NOREPLICAS), 'NOREPLICAS'],
  ['Redis 6.0 to 8', BUSY('Redis'), 'BUSY'],
  ['Valkey 8 and 9', BUSY('Valkey'), 'BUSY'],
  ['Redis 7 to 8', 'BUSY Redis is busy running a module command.', 'BUSY'],
  ['all', 'NOAUTH Authentication required.', 'NOAUTH'],
  ['all', 'WRONGPASS invalid username-password pair or user is disabled.', 'WRONGPASS'],
  ['Upstash', 'WRONGPASS invalid or missing auth token', 'WRONGPASS'],
  ['Redis 6.0 to 8', 'DENIED Redis is running in protected mode because protected mode is enabled', 'DENIED'],
  ['Valkey 8 and 9', 'DENIED Running in protected mode because protected mode is enabled', 'DENIED'],
  ['all', 'ERR max number of clients reached', 'MAXCLIENTS'],
  ['all', 'ERR max number of clients + cluster connections reached', 'MAXCLIENTS'],
  ['Redis 7 to 8, EXEC', `EXECABORT Transaction discarded because of: ${OOM}`, 'OOM'],
  [
    'Upstash',
    'ERR max daily request limit exceeded. Limit: 10000, Usage: 10001. See https://upstash.com/docs',
    'QUOTA',
  ],
  ['Upstash', 'ERR max daily request limit exceeded', 'QUOTA'],
  ['Upstash', 'ERR max requests limit exceeded. ', 'QUOTA'],
  ['Upstash', 'ERR max concurrent connections exceeded', 'QUOTA'],
  ['Upstash', 'ERR DB capacity quota exceeded', 'QUOTA'],
  ['Upstash, older', 'ERR max database size exceeded', 'QUOTA'],
];

/** What a cluster, or the gateway before it, says of the part that holds the key. */
const SHARD: [servers: string, text: string, code: string][] = [
  ['all', 'CLUSTERDOWN The cluster is down', 'CLUSTERDOWN'],
  ['all', 'CLUSTERDOWN The cluster is down and only accepts read commands', 'CLUSTERDOWN'],
  ['all', 'CLUSTERDOWN Hash slot not served', 'CLUSTERDOWN'],
  [
    'Redis 6, in a script',
    sixCalled('@user_script: 1: Lua script attempted to execute a command while the cluster is down'),
    'CLUSTERDOWN',
  ],
  [
    'Redis 6, in a script',
    sixCalled('@user_script: 1: Lua script attempted to access a non local key in a cluster node'),
    'CLUSTERDOWN',
  ],
  [
    'Redis 7 to 8 and Valkey, in a script',
    seven('ERR Script attempted to execute a write command while the cluster is down and readonly'),
    'CLUSTERDOWN',
  ],
  [
    'Redis 7 to 8 and Valkey, in a script',
    seven('ERR Script attempted to access a non local key in a cluster node'),
    'CLUSTERDOWN',
  ],
  ['Redis 7.4 to 8 and Valkey, in a script', seven('ERR Script attempted to access a slot not served'), 'CLUSTERDOWN'],
  ['all', 'MOVED 3999 127.0.0.1:6381', 'MOVED'],
  ['all', 'ASK 3999 127.0.0.1:6381', 'ASK'],
  ['all', 'TRYAGAIN Multiple keys request during rehashing of slot', 'TRYAGAIN'],
  ['Valkey 8 and 9', 'REDIRECT 127.0.0.1:6381', 'REDIRECT'],
  ['the gateway', 'UNAVAILABLE no reply within 5000 ms', 'UNAVAILABLE'],
  ['the gateway', 'UNAVAILABLE Redis is not available: connect ECONNREFUSED 127.0.0.1:1', 'UNAVAILABLE'],
];

/** What concerns one command, and says nothing about Redis. */
const COMMAND: [servers: string, text: string, code: string][] = [
  ['all', 'WRONGTYPE Operation against a key holding the wrong kind of value', 'WRONGTYPE'],
  ['Redis 6, in a script', sixCalled('WRONGTYPE Operation against a key holding the wrong kind of value'), 'WRONGTYPE'],
  [
    'Redis 7 to 8 and Valkey, in a script',
    seven('WRONGTYPE Operation against a key holding the wrong kind of value'),
    'WRONGTYPE',
  ],
  ['Redis 6.0 to 8', 'NOSCRIPT No matching script. Please use EVAL.', 'NOSCRIPT'],
  ['Valkey 8 and 9', 'NOSCRIPT No matching script.', 'NOSCRIPT'],
  ['all', "NOPERM User default has no permissions to run the 'config|get' command", 'NOPERM'],
  ['Upstash', "NOPERM this user has no permissions to run the 'eval' command or its subcommand", 'NOPERM'],
  ['all', "CROSSSLOT Keys in request don't hash to the same slot", 'CROSSSLOT'],
  ['all', 'BUSYKEY Target key name already exists.', 'BUSYKEY'],
  ['all', 'BUSYGROUP Consumer Group name already exists', 'BUSYGROUP'],
  ['all', 'NOTBUSY No scripts in execution right now.', 'NOTBUSY'],
  ['all', 'EXECABORT Transaction discarded because of previous errors.', 'EXECABORT'],
  ['all', 'ERR value is not an integer or out of range', 'ERR'],
  ['all', "ERR wrong number of arguments for 'get' command", 'ERR'],
  ['all', "ERR unknown command 'LOADING', with args beginning with: 'READONLY'", 'ERR'],
  ['all', 'ERR string exceeds maximum allowed size (proto-max-bulk-len)', 'ERR'],
  ['Redis 6, in a script', sixCalled('@user_script: 1: Unknown Redis command called from Lua script'), 'ERR'],
  [
    'Redis 6, a mistake in the script',
    sixCalled("user_script:1: attempt to index field 'READONLY' (a nil value)"),
    'ERR',
  ],
  [
    'Redis 6, a mistake in the script',
    `ERR Error running script (call to f_${SHA}): @enable_strict_lua:15: user_script:1: Script attempted to access ` +
      "nonexistent global variable 'OOM'",
    'ERR',
  ],
  [
    'Redis 6, a mistake in the script',
    'ERR Error compiling script (new function): user_script:1: READONLY near expected',
    'ERR',
  ],
  [
    'Redis 7 to 8 and Valkey, a mistake in the script',
    seven("ERR user_script:1: Script attempted to access nonexistent global variable 'OOM'"),
    'ERR',
  ],
  [
    'Redis 7 to 8 and Valkey, in a script',
    seven('ERR Script attempted to access keys that do not hash to the same slot'),
    'ERR',
  ],
  ['Redis 7 to 8 and Valkey', 'ERR Write commands are not allowed from read-only scripts.', 'ERR'],
  ['Upstash', 'ERR max request size exceeded', 'ERR'],
  ['Upstash', 'ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1258291 bytes', 'ERR'],
  ['Upstash', 'ERR max single record size exceeded', 'ERR'],
  ['Upstash', 'ERR max key size exceeded. Limit: 32768 bytes, Actual: 40000 bytes', 'ERR'],
  ['Upstash', 'ERR max member size exceeded. Limit: 32768 bytes, Actual: 40000 bytes', 'ERR'],
  ['Upstash', 'ERR max field size exceeded. Limit: 32768 bytes, Actual: 40000 bytes', 'ERR'],
  [
    'Upstash',
    "ERR Dynamic keys are not allowed in Lua scripts when 'allow-key-locking' flag is set. Key was: OOM",
    'ERR',
  ],
  ['Upstash', 'ERR XReadGroup is cancelled. Pending Entries List limit per consumer is about to be reached.', 'ERR'],
  ['the gateway', "ERR Command is not available: 'CONFIG', it administers the server", 'ERR'],
  ['a text without a code', 'something LOADING', 'ERR'],
];

describe('errors of a server’s state', () => {
  test.each(STATE)('%s: %s', (_, text, code) => {
    expect(replyError(text)).toMatchObject({ name: 'RedisUnavailable', reason: 'state', code });
    expect(isTooLarge(text)).toBe(false);
  });
});

describe('errors of the shard that holds the key', () => {
  test.each(SHARD)('%s: %s', (_, text, code) => {
    expect(replyError(text)).toMatchObject({ name: 'RedisUnavailable', reason: 'shard', code });
  });
});

describe('errors of one command', () => {
  test.each(COMMAND)('%s: %s', (_, text, code) => {
    const error = replyError(text);
    expect(error).toBeInstanceOf(RedisReplyError);
    expect(error).not.toBeInstanceOf(RedisUnavailable);
    expect(error).toMatchObject({ code });
  });

  test('never carry the text, which quotes arguments', () => {
    for (const [, text] of [...STATE, ...SHARD, ...COMMAND]) {
      const said = String(replyError(text));
      expect(said).not.toContain('maxmemory');
      expect(said).not.toContain('127.0.0.1');
      expect(said.length).toBeLessThan(70);
    }
  });
});
