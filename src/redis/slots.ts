import type { Command } from './client';

/**
 * The part of a key that decides its hash slot: the content of its first `{…}` if that is not empty, else the whole key.
 */
export function hashTagOf(key: string): string {
  const start = key.indexOf('{');
  const end = start === -1 ? -1 : key.indexOf('}', start + 1);
  return end > start + 1 ? key.slice(start + 1, end) : key;
}

const SLOT_COUNT = 16_384;

/** The hash slot of a key in Redis Cluster: CRC-16/XMODEM (polynomial 0x1021) of its hash tag, modulo 16,384. */
export function slotOf(key: string): number {
  let crc = 0;
  for (const byte of new TextEncoder().encode(hashTagOf(key))) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  return crc % SLOT_COUNT;
}

const WITHOUT_KEYS = new Set(['PING', 'TIME', 'INFO', 'SCAN', 'DBSIZE', 'SCRIPT', 'CONFIG', 'CLUSTER']);
const ALL_KEYS = new Set(['MGET', 'UNLINK', 'DEL', 'EXISTS']);

/** The keys of a command of this app: none, the first argument, all arguments, or the KEYS of a script. */
export function keysOf([name, ...args]: Command): string[] {
  const upper = name.toUpperCase();
  if (WITHOUT_KEYS.has(upper)) return [];
  if (upper === 'EVALSHA' || upper === 'EVAL') return args.slice(2, 2 + Number(args[1])).map(String);
  return (ALL_KEYS.has(upper) ? args : args.slice(0, 1)).map(String);
}
