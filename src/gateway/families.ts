/** Families of commands, as metrics name them. */
export const FAMILIES = [
  'string',
  'hash',
  'list',
  'set',
  'sorted_set',
  'stream',
  'bitmap',
  'geo',
  'hyperloglog',
  'key',
  'script',
  'pubsub',
  'server',
  'other',
] as const;

const MEMBERS: Partial<Record<(typeof FAMILIES)[number], string>> = {
  string: `APPEND DECR DECRBY GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET MSETEX MSETNX PSETEX
    SET SETEX SETNX SETRANGE STRLEN SUBSTR`,
  list: `LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM RPOP RPOPLPUSH RPUSH RPUSHX`,
  set: `SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SPOP SRANDMEMBER
    SREM SSCAN SUNION SUNIONSTORE`,
  bitmap: 'BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT',
  key: `COPY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME KEYS MOVE OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL
    RANDOMKEY RENAME RENAMENX RESTORE SCAN SORT SORT_RO TOUCH TTL TYPE UNLINK`,
  script: 'EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION SCRIPT',
  pubsub: 'PUBLISH PUBSUB SPUBLISH',
  server: 'CLUSTER COMMAND DBSIZE ECHO FLUSHALL FLUSHDB INFO LASTSAVE LOLWUT MEMORY PING ROLE TIME',
};
/** Families whose commands begin alike, modules' included. */
const PREFIXES: [RegExp, (typeof FAMILIES)[number]][] = [
  [/^H/, 'hash'],
  [/^Z/, 'sorted_set'],
  [/^X/, 'stream'],
  [/^GEO/, 'geo'],
  [/^PF/, 'hyperloglog'],
];

const BY_NAME = new Map<string, number>();
for (const [family, names] of Object.entries(MEMBERS)) {
  for (const name of names.split(/\s+/)) BY_NAME.set(name, FAMILIES.indexOf(family as (typeof FAMILIES)[number]));
}

/** The number of a command's family in {@link FAMILIES}. A client cannot make new ones: labels must stay few. */
export function familyOf(name: string): number {
  const known = BY_NAME.get(name);
  if (known !== undefined) return known;
  return FAMILIES.indexOf(PREFIXES.find(([prefix]) => prefix.test(name))?.[1] ?? 'other');
}
