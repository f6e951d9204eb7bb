import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ScriptTranslator, withoutKeyLocking } from '../../../src/gateway/scripts.ts';

const sha1 = (text: string) => createHash('sha1').update(text).digest('hex');

describe('withoutKeyLocking', () => {
  it.each([
    ['#!lua flags=allow-key-locking\nreturn 1', '\nreturn 1'],
    ['#!lua flags=allow-key-locking,no-writes\nreturn 1', '#!lua flags=no-writes\nreturn 1'],
    ['#!lua flags=no-writes,allow-key-locking,allow-stale\r\nx', '#!lua flags=no-writes,allow-stale\nx'],
    ['#!lua name=lib flags=allow-key-locking\nx', '#!lua name=lib\nx'],
    ['#!lua flags=allow-key-locking', ''],
  ])('%j becomes %j', (script, expected) => {
    expect(withoutKeyLocking(script)?.replace('\r', '')).toBe(expected);
  });

  it.each([
    ['return 1'],
    ['#!lua\nreturn 1'],
    ['#!lua flags=no-writes\nreturn 1'],
    ['-- #!lua flags=allow-key-locking\nx'],
    [''],
  ])('%j stays', (script) => {
    expect(withoutKeyLocking(script)).toBeUndefined();
  });
});

describe('ScriptTranslator', () => {
  const script = '#!lua flags=allow-key-locking\nreturn 1';
  const theirs = sha1('\nreturn 1');

  it('translates the client’s SHA once it has seen the script, whatever the case', () => {
    const scripts = new ScriptTranslator();
    expect(scripts.outgoing('EVALSHA', ['EVALSHA', sha1(script), '0'])).toEqual(['EVALSHA', sha1(script), '0']);
    expect(scripts.outgoing('EVAL', ['EVAL', script, '0'])).toEqual(['EVAL', '\nreturn 1', '0']);
    for (const sha of [sha1(script), sha1(script).toUpperCase()]) {
      expect(scripts.outgoing('EVALSHA', ['evalsha', sha, '1', sha])).toEqual(['evalsha', theirs, '1', sha]);
      expect(scripts.outgoing('SCRIPT', ['SCRIPT', 'exists', 'x', sha])).toEqual(['SCRIPT', 'exists', 'x', theirs]);
    }
  });

  it('takes a script that came as bytes, too', () => {
    const scripts = new ScriptTranslator();
    expect(scripts.outgoing('EVAL', ['EVAL', Buffer.from(script), '0'])).toEqual(['EVAL', '\nreturn 1', '0']);
  });

  it('replies to SCRIPT LOAD with the SHA of what the client sent', () => {
    const scripts = new ScriptTranslator();
    scripts.outgoing('SCRIPT', ['SCRIPT', 'LOAD', script]);
    expect(scripts.incoming(['SCRIPT', 'LOAD', script], Buffer.from(theirs))).toEqual(Buffer.from(sha1(script)));
    expect(scripts.incoming(['SCRIPT', 'LOAD', 'return 2'], Buffer.from('other'))).toEqual(Buffer.from('other'));
    expect(scripts.incoming(['GET', 'LOAD', script], Buffer.from(theirs))).toEqual(Buffer.from(theirs));
  });

  it('forgets the oldest scripts rather than grow without bound', () => {
    const scripts = new ScriptTranslator();
    scripts.outgoing('EVAL', ['EVAL', script, '0']);
    for (let i = 0; i < 1000; i++)
      scripts.outgoing('EVAL', ['EVAL', `#!lua flags=allow-key-locking\nreturn ${i}+1`, '0']);
    expect(scripts.outgoing('EVALSHA', ['EVALSHA', sha1(script), '0'])).toEqual(['EVALSHA', sha1(script), '0']);
    expect(scripts.outgoing('EVAL', ['EVAL', script, '0'])).toEqual(['EVAL', '\nreturn 1', '0']);
  });
});
