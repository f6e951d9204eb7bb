import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FULL_RULES, READ_ONLY_RULES } from '../../../src/gateway/acl.ts';
import { isReadOnly, KEYS, nameOf, refusal } from '../../../src/gateway/commands.ts';
import type { Command } from '../../../src/gateway/reply.ts';
import { slotOf } from '../../../src/gateway/slots.ts';
import { hasRedisServer, REDIS_MISSING, type RedisProcess, startRedis } from '../../support/redisServers.ts';

/** One example for every way in which keys stand in a command. */
const EXAMPLES = `
  GET k | SET k v EX 10 | MSET a 1 b 2 | MGET a b c | DEL a b | BITOP AND d a b | COPY a b | RENAME a b | LCS a b LEN
  EVAL return 2 a b x | EVALSHA abc 1 a x | EVAL return 0 x | FCALL f 2 a b | OBJECT ENCODING k | MEMORY USAGE k
  XADD s * f v | XREAD COUNT 2 STREAMS a b 0 0 | XREADGROUP GROUP g c COUNT 1 STREAMS a > | XINFO STREAM s
  XGROUP CREATE s g $ | SORT l BY w STORE d | SORT l | GEORADIUS g 1 1 1 m STORE d | GEOSEARCHSTORE d g FROMMEMBER m BYRADIUS 1 m
  ZUNIONSTORE d 2 a b WEIGHTS 1 2 | ZUNION 2 a b | ZINTERCARD 2 a b LIMIT 1 | SINTERCARD 1 a | LMPOP 2 a b LEFT
  ZMPOP 1 a MIN | ZRANGESTORE d s 0 -1 | SMOVE a b m | PFMERGE d a b | SDIFFSTORE d a | LMOVE a b LEFT RIGHT
  SINTER a b | HSET h f v | ZADD z 1 m | EXPIRE k 1 | TOUCH a b | MSETNX a 1 b 2 | RPOPLPUSH a b | XCLAIM s g c 0 1-1
`
  .split(/[|\n]/)
  .map((line) => line.trim().split(' ') as unknown as Command)
  .filter((command) => command[0] !== '');

describe.skipIf(!hasRedisServer)(`the command table${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let server: RedisProcess;
  beforeAll(async () => {
    server = await startRedis('--cluster-enabled', 'yes');
  });
  afterAll(() => server.stop());

  it('finds the same keys as Redis does', async () => {
    for (const command of EXAMPLES) {
      const args = command.map(String);
      const theirs = await server.command('COMMAND', 'GETKEYS', ...args).catch((error: Error) => {
        if (/no key arguments/.test(error.message)) return [];
        throw new Error(`${args.join(' ')}: ${error.message}`);
      });
      expect({ args, keys: KEYS.get(nameOf(command))!(command) }).toEqual({ args, keys: theirs });
    }
  });

  it('takes every command without a first key to be without keys, or refuses it', async () => {
    const table = (await server.command('COMMAND')) as [string, number, string[], number][];
    for (const [lower, , flags, firstKey] of table) {
      const name = lower.toUpperCase();
      if (firstKey !== 0 || flags.includes('movablekeys')) continue;
      const command: Command = [name, 'argument'];
      const keyless = refusal(name, command) !== undefined || KEYS.get(name)!(command).length === 0;
      // containers: their subcommands have keys (OBJECT ENCODING key)
      expect({ name, keyless: keyless || ['OBJECT', 'MEMORY', 'XINFO', 'XGROUP'].includes(name) }).toEqual({
        name,
        keyless: true,
      });
    }
  });

  it('lets the read-only token run exactly the commands that Redis flags as read-only, and those that touch no data', async () => {
    const table = (await server.command('COMMAND')) as [string, number, string[]][];
    const harmless = new Set('COMMAND ECHO INFO LASTSAVE MEMORY OBJECT PING PUBSUB ROLE TIME XINFO'.split(' '));
    for (const [lower, , flags] of table) {
      const name = lower.toUpperCase();
      if (refusal(name, [name]) !== undefined) continue;
      expect({ name, readOnly: isReadOnly(name) }).toEqual({
        name,
        readOnly: flags.includes('readonly') || harmless.has(name),
      });
    }
  });

  it.each([
    ['the full token', FULL_RULES, () => true],
    ['the read-only token', READ_ONLY_RULES, (name: string, readOnly: boolean) => readOnly || isReadOnly(name)],
  ])(
    'the Redis user for %s may run every command that the gateway lets through, and none that it should not',
    async (_, rules, wanted) => {
      await server.command('ACL', 'SETUSER', 'checked', 'reset', 'on', 'nopass', ...rules);
      const table = (await server.command('COMMAND')) as [string, number, string[], ...unknown[]][];
      let checked = 0;
      for (const [lower, arity, flags, , , , , , , subcommands] of table) {
        const name = lower.toUpperCase();
        // Of a container's subcommands, those that the gateway lets through.
        const inner = (subcommands as [string, number, string[]][]).map(
          ([full, n, f]) => [full.split('|')[1]!, n, f] as const,
        );
        const forms = inner.length > 0 ? inner : [['', arity, flags] as const];
        for (const [sub, length, words] of forms) {
          const start = sub === '' ? [name] : [name, sub];
          if (sub === 'help' || refusal(name, start as unknown as Command) !== undefined) continue;
          const command = [...start, ...Array.from({ length: Math.abs(length) - start.length }, () => '1')];
          const answer = String(await server.command('ACL', 'DRYRUN', 'checked', ...command));
          const may = wanted(name, words.includes('readonly')) && !(name === 'CLUSTER' && rules === READ_ONLY_RULES);
          if (may) expect({ command, answer }).toEqual({ command, answer: 'OK' });
          if (words.includes('write') && rules === READ_ONLY_RULES) expect(answer).not.toBe('OK');
          checked++;
        }
      }
      expect(checked).toBeGreaterThan(180);
    },
  );

  it('refuses every command that Redis calls blocking or administrative', async () => {
    const table = (await server.command('COMMAND')) as [string, number, string[]][];
    for (const [lower, , flags] of table) {
      const name = lower.toUpperCase();
      if (!flags.includes('admin') && !(flags.includes('blocking') && !name.startsWith('XREAD'))) continue;
      expect({ name, refused: refusal(name, [name, 'x']) !== undefined }).toEqual({ name, refused: true });
    }
  });

  it('hashes keys to the same slots', async () => {
    const keys = ['', 'a', 'user:1', '{tag}x', 'x{tag}y', '{}x', 'x{', 'x}{a}', '{a}{b}', '{{a}}', 'schlüssel', '日本'];
    for (const key of keys) {
      expect({ key, slot: slotOf(key) }).toEqual({ key, slot: await server.command('CLUSTER', 'KEYSLOT', key) });
      expect(slotOf(Buffer.from(key))).toBe(slotOf(key));
    }
  });
});
