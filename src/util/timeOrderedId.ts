/** The largest number that the 12 bits after the version hold. */
const MAX_SEQUENCE = 0xfff;

/**
 * Makes UUIDs of version 7 (RFC 9562, section 5.7): text that sorts by time. Ids of one generator sort in the order in which
 * they were made, also within a millisecond and when the clock goes back (section 6.2, method 1: a counter in `rand_a`).
 *
 * @example
 * const nextId = timeOrderedIds();
 * nextId(Date.now()) < nextId(Date.now()); // true
 */
export function timeOrderedIds(): (nowMs: number) => string {
  let lastMs = 0;
  let sequence = 0;
  return (nowMs) => {
    if (nowMs > lastMs) {
      lastMs = nowMs;
      sequence = 0;
    } else if (sequence < MAX_SEQUENCE) {
      sequence += 1;
    } else {
      // The section allows this: the id's time runs ahead of the clock.
      lastMs += 1;
      sequence = 0;
    }
    const time = lastMs.toString(16).padStart(12, '0');
    // Variant and random bits of a UUID of version 4.
    const random = crypto.randomUUID().slice(19);
    return `${time.slice(0, 8)}-${time.slice(8)}-7${sequence.toString(16).padStart(3, '0')}-${random}`;
  };
}
