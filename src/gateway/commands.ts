import type { Arg, Command } from './reply.ts';

/** Where a command's keys stand. Checked against the servers' own `COMMAND GETKEYS` by a test. */
export type KeyRule = (command: Command) => Arg[];

const words = (list: string) => list.trim().split(/\s+/);

/** Keys from `first` to the end, every `step`-th, `omitted` arguments at the end left out. */
const from =
  (first: number, step = 1): KeyRule =>
  (command) =>
    command.slice(first).filter((_, index) => index % step === 0);
/** Exactly `count` keys from `first` on. */
const fixed =
  (first: number, count = 1): KeyRule =>
  (command) =>
    command.slice(first, first + count);
/** A count of keys at `at`, followed by them; before it, `extra` keys from 1 on (a destination). */
const counted =
  (at: number, extra = 0): KeyRule =>
  (command) => {
    const count = Number(String(command[at] ?? 0));
    return [...command.slice(1, 1 + extra), ...command.slice(at + 1, at + 1 + (count > 0 ? count : 0))];
  };
/** The first key, and the one after the word STORE or STOREDIST. */
const withStore: KeyRule = (command) => {
  const store = command.findIndex((arg, index) => index > 1 && /^store(?:dist)?$/i.test(String(arg)));
  return store === -1 ? command.slice(1, 2) : [...command.slice(1, 2), ...command.slice(store + 1, store + 2)];
};
/** XREAD … STREAMS key [key …] id [id …] */
const streams: KeyRule = (command) => {
  const at = command.findIndex((arg, index) => index > 0 && String(arg).toUpperCase() === 'STREAMS');
  if (at === -1) return [];
  return command.slice(at + 1, at + 1 + Math.floor((command.length - at - 1) / 2));
};
const none: KeyRule = () => [];

/** Where the keys stand in every command that this gateway knows; the {@link CommandCatalog} asks Redis about others. */
export const KEYS: ReadonlyMap<string, KeyRule> = new Map<string, KeyRule>(
  (
    [
      [
        none,
        `CLUSTER COMMAND DBSIZE ECHO FLUSHALL FLUSHDB FUNCTION INFO KEYS LASTSAVE LOLWUT PING PUBLISH PUBSUB RANDOMKEY ROLE SCAN
         SCRIPT TIME`,
      ],
      [
        fixed(1),
        `APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DUMP EXPIRE EXPIREAT EXPIRETIME GEOADD GEODIST GEOHASH
         GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HGET
         HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY
         INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MOVE PERSIST PEXPIRE PEXPIREAT
         PEXPIRETIME PFADD PSETEX PTTL RESTORE RPOP RPUSH RPUSHX SADD SCARD SET SETBIT SETEX SETNX SETRANGE SISMEMBER
         SMEMBERS SMISMEMBER SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUBSTR TTL TYPE XACK XADD XAUTOCLAIM
         XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX
         ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK
         ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE`,
      ],
      [fixed(2), 'OBJECT MEMORY XINFO XGROUP'],
      [from(2), 'BITOP'],
      [from(1), 'DEL EXISTS MGET PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER SINTERSTORE SUNION SUNIONSTORE TOUCH UNLINK'],
      [from(1, 2), 'MSET MSETNX'],
      [fixed(1, 2), 'COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE'],
      [counted(1), 'LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION'],
      [counted(2), 'EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO'],
      [counted(2, 1), 'ZDIFFSTORE ZINTERSTORE ZUNIONSTORE'],
      [withStore, 'GEORADIUS GEORADIUSBYMEMBER SORT'],
      [streams, 'XREAD XREADGROUP'],
    ] as [KeyRule, string][]
  ).flatMap(([rule, names]) => words(names).map((name) => [name, rule])),
);

/** Commands that a read-only token may run: those that Redis flags `readonly`, and those that touch no data. */
const READ_ONLY = new Set(
  words(`
  BITCOUNT BITFIELD_RO BITPOS COMMAND DBSIZE DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO GEODIST GEOHASH
  GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET
  HRANDFIELD HSCAN HSTRLEN HVALS INFO KEYS LASTSAVE LCS LINDEX LLEN LOLWUT LPOS LRANGE MEMORY MGET OBJECT PEXPIRETIME
  PFCOUNT PING PTTL PUBSUB RANDOMKEY ROLE SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO
  SRANDMEMBER SSCAN STRLEN SUBSTR SUNION TIME TOUCH TTL TYPE XINFO XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT
  ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE
  ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION`),
);

/** Why a command is not available through the gateway. All requests share a few connections. */
const REFUSED = new Map<string, string>(
  (
    [
      [
        'it blocks, and would hold up every other request',
        'BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN WAIT WAITAOF',
      ],
      ['it changes the connection, which all requests share: use /multi-exec', 'DISCARD EXEC MULTI UNWATCH WATCH'],
      ['use /subscribe or /psubscribe', 'PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE'],
      ['use /monitor', 'MONITOR'],
      [
        'it changes the connection, which all requests share',
        'ASKING AUTH CLIENT HELLO QUIT READONLY READWRITE RESET SELECT',
      ],
      [
        'it administers the server',
        `ACL BGREWRITEAOF BGSAVE CONFIG DEBUG FAILOVER LATENCY MIGRATE MODULE PFDEBUG PFSELFTEST PSYNC REPLCONF
         REPLICAOF RESTORE-ASKING SAVE SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC`,
      ],
    ] as const
  ).flatMap(([reason, names]) => words(names).map((name) => [name, reason] as const)),
);

const SCRIPTS = new Set(words('EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO'));

/** Of these containers only the subcommands named here are let through. */
const SUBCOMMANDS = new Map<string, ReadonlySet<string>>([
  // A client may learn which slots fail together.
  ['CLUSTER', new Set(['SLOTS'])],
  ['FUNCTION', new Set(words('DELETE DUMP FLUSH KILL LIST LOAD RESTORE STATS'))],
  ['MEMORY', new Set(['USAGE'])],
  ['SCRIPT', new Set(words('EXISTS FLUSH KILL LOAD'))],
]);

/** The command's name in capitals. */
export function nameOf(command: Command): string {
  return String(command[0]).toUpperCase();
}

/** The command's keys; of one that the table does not have, its first argument is taken to be the only one. */
export function keysOf(name: string, command: Command): Arg[] {
  return (KEYS.get(name) ?? fixed(1))(command);
}

/** Whether the command runs a script or a function, whose errors may say anything. */
export function isScript(name: string): boolean {
  return SCRIPTS.has(name);
}

/** Whether the command ends a script that is running (`SCRIPT KILL`, `FUNCTION KILL`). */
export function isKill(name: string, command: Command): boolean {
  return (name === 'SCRIPT' || name === 'FUNCTION') && /^kill$/i.test(String(command[1] ?? ''));
}

/** Whether the command is refused by its name alone. */
export function isRefusedByName(name: string): boolean {
  return REFUSED.has(name);
}

/** Whether the read-only token may run it. Unknown commands may write. */
export function isReadOnly(name: string): boolean {
  return READ_ONLY.has(name);
}

/** The error for a command that is not available over the gateway, else `undefined`. */
export function refusal(name: string, command: Command): string | undefined {
  const reason = REFUSED.get(name);
  if (reason !== undefined) return `ERR Command is not available: '${name}', ${reason}`;
  const allowed = SUBCOMMANDS.get(name);
  if (allowed && command[1] !== undefined && !allowed.has(String(command[1]).toUpperCase())) {
    return `ERR Command is not available: '${name} ${String(command[1]).toUpperCase().slice(0, 32)}', it administers the server`;
  }
  if ((name === 'XREAD' || name === 'XREADGROUP') && blocks(command)) {
    return `ERR Command is not available: '${name}' with BLOCK, it would hold up every other request`;
  }
  return undefined;
}

/** BLOCK stands among the options; after STREAMS it is the name of a key, after GROUP that of a group. */
function blocks(command: Command): boolean {
  for (let i = 1; i < command.length; i++) {
    const word = String(command[i]).toUpperCase();
    if (word === 'STREAMS') return false;
    if (word === 'BLOCK') return true;
    if (word === 'GROUP') i += 2;
    else if (word === 'COUNT') i += 1;
  }
  return false;
}
