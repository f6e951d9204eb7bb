/** The field of Curve25519, and the `d` of its Edwards form (RFC 8032, section 5.1). */
const P = 2n ** 255n - 19n;
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;

/** One of the two y of the points of order 8; the other is `P` minus this. */
const Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022n;

/**
 * The y of every point whose order divides 8: the identity, (0, -1), the two of order 4, the four of order 8. A signature
 * under such a "public key" can be made by anyone, without a private key.
 */
const SMALL_ORDER: ReadonlySet<bigint> = new Set([0n, 1n, P - 1n, Y_OF_ORDER_8, P - Y_OF_ORDER_8]);

/**
 * The fault of an Ed25519 public key; `undefined` for a valid one. Importing a key does not check this: it accepts any 32
 * bytes.
 *
 * @param bytes 32 of them (RFC 8032, section 5.1.2)
 */
export function ed25519PointFault(bytes: Uint8Array): string | undefined {
  // Little-endian; the highest bit is the sign of x.
  const y = BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`) & (2n ** 255n - 1n);
  if (y >= P) return 'has an x that is not a canonical point of its curve';
  if (SMALL_ORDER.has(y)) return 'has an x of small order: anyone could forge its signatures';
  const square = (y * y) % P;
  // x^2 = (y^2 - 1) / (d*y^2 + 1), which has a root exactly when numerator * denominator has one (Euler's criterion).
  const ratio = ((square - 1n) * (D * square + 1n)) % P;
  return power(ratio, (P - 1n) / 2n) === 1n ? undefined : 'has an x that is not a point of its curve';
}

function power(base: bigint, exponent: bigint): bigint {
  let [result, factor] = [1n, base];
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = (result * factor) % P;
    factor = (factor * factor) % P;
  }
  return result;
}
