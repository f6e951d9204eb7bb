import { Redis } from '@upstash/redis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gateway, startGateway } from '../../../src/gateway/gateway.ts';
import { until } from '../../support/redisServers.ts';

const TOKEN = 't';
let gateway: Gateway;
let redis: Redis;
/** Without the SDK's own conversions. */
let plain: Redis;

beforeAll(async () => {
  gateway = await startGateway({ token: TOKEN, port: 0 });
  redis = new Redis({ url: gateway.url, token: TOKEN, retry: false });
  plain = new Redis({ url: gateway.url, token: TOKEN, retry: false, automaticDeserialization: false });
});
afterAll(() => gateway.close());

const subscribers = async (channel: string) =>
  ((await plain.exec(['PUBSUB', 'NUMSUB', channel])) as [string, number])[1];
const patterns = async () => Number(await plain.exec(['PUBSUB', 'NUMPAT']));

const CHANNELS = [
  'a/b',
  'a b',
  'a%b',
  'a%2Fb',
  '50%41',
  'schlüssel',
  '日本',
  '{tag}:x',
  'q?a=b&c',
  'x"<>`^|',
  'a+b',
  "it's",
  'a//b/',
  '…',
];
const PAYLOADS: [what: string, payload: string, received: unknown][] = [
  ['a word', 'hello', 'hello'],
  ['a line break', 'one\ntwo', 'one\ntwo'],
  ['line breaks of every kind', '\r\n\n\rx\r\ny\n', '\r\n\n\rx\r\ny\n'],
  ['what looks like an event', 'x\ndata: message,c,forged\n\n', 'x\ndata: message,c,forged\n\n'],
  ['commas', 'a,b,c', 'a,b,c'],
  ['JSON', '{"a":[1,"x"]}', { a: [1, 'x'] }],
  ['JSON on several lines', '{\r\n  "a": [\n1,\n"x y"]\n}\n', { a: [1, 'x y'] }],
  ['quotes', 'say "hi"\n', 'say "hi"\n'],
  ['separators of Unicode', '\u2028 \u2029 \u0085\n', '\u2028 \u2029 \u0085\n'],
  ['nothing', '', ''],
];

/** Collects a subscriber's messages, once it is subscribed. */
async function collect(channel: string, pattern = false) {
  const subscriber = pattern ? redis.psubscribe<unknown>(channel) : redis.subscribe<unknown>(channel);
  const received: { channel: string; message: unknown }[] = [];
  const errors: Error[] = [];
  let confirmed = false;
  const on = subscriber.on.bind(subscriber) as (type: string, listener: (event: never) => void) => void;
  on('message', (event: { channel: string; message: unknown }) => received.push(event));
  on('pmessage', (event: { channel: string; message: unknown }) => received.push(event));
  on('error', (error: Error) => errors.push(error));
  on(pattern ? 'psubscribe' : 'subscribe', () => (confirmed = true));
  await until(() => confirmed, `${channel} is confirmed`);
  return { received, errors, end: () => subscriber.unsubscribe() };
}

describe('the subscriptions of Upstash’s SDK', () => {
  it.each(CHANNELS)('listen to the channel %s, and to no other', async (channel) => {
    const { received, end } = await collect(channel);
    expect(await subscribers(channel)).toBe(1);
    expect(await plain.exec(['PUBSUB', 'CHANNELS'])).toEqual([channel]);
    expect(await plain.publish(channel, 'm')).toBe(1);
    await until(() => received.length === 1, 'the message arrives');
    expect(received).toEqual([{ channel, message: 'm' }]);
    await end();
    await until(async () => (await subscribers(channel)) === 0, 'it has ended');
  });

  it('get every payload whole, from channels and from patterns', async () => {
    const channel = await collect('payloads');
    const pattern = await collect('payload*', true);
    for (const [, payload] of PAYLOADS) expect(await plain.publish('payloads', payload)).toBe(2);
    await until(() => channel.received.length + channel.errors.length === PAYLOADS.length, 'the channel has all');
    await until(() => pattern.received.length + pattern.errors.length === PAYLOADS.length, 'the pattern has all');
    PAYLOADS.forEach(([what, , message], i) => {
      expect([what, channel.received[i]!.message]).toEqual([what, message]);
      expect([what, pattern.received[i]!.message]).toEqual([what, message]);
    });
    expect([...channel.errors, ...pattern.errors]).toEqual([]);
    await channel.end();
    await pattern.end();
    await until(async () => (await patterns()) === 0, 'the pattern has ended');
  });

  it.each(['a/*', 'news.[ab]', 'x{1}*', 'ü*'])('listen to the pattern %s', async (glob) => {
    const { received, end } = await collect(glob, true);
    const channel = glob.replace('[ab]', 'a').replace('*', '/1,2');
    expect(await plain.publish(channel, 'text')).toBe(1);
    await until(() => received.length === 1, 'the message arrives');
    // A comma in a name ends it for the SDK, so it gets it escaped.
    expect(received[0]).toMatchObject({ channel: channel.replaceAll(',', '%2C'), message: 'text' });
    await end();
    await until(async () => (await patterns()) === 0, 'it has ended');
  });
});
