import type { Arg } from './reply.ts';

/** Hash slots of a Redis Cluster. */
export const SLOT_COUNT = 16_384;

/** CRC-16/XMODEM (polynomial 0x1021), as the Redis Cluster specification demands, appendix A. */
const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc & 0xffff;
});

/** The hash slot of a key: of the part between its first `{` and the next `}`, where that is not empty. */
export function slotOf(key: Arg): number {
  const bytes = typeof key === 'string' ? Buffer.from(key) : key;
  let start = bytes.indexOf(0x7b);
  let end = start === -1 ? -1 : bytes.indexOf(0x7d, start + 1);
  if (end <= start + 1) {
    start = -1;
    end = bytes.length;
  }
  let crc = 0;
  for (let i = start + 1; i < end; i++) crc = ((crc << 8) & 0xffff) ^ TABLE[((crc >> 8) ^ bytes[i]!) & 0xff]!;
  return crc % SLOT_COUNT;
}
