/**
 * SQL: the network of the client address in the column `address`, /24 of IPv4 and /48 of IPv6, as in the logs. For rows that
 * no longer need the whole address. Addresses are in RFC 5952's spelling; other text stays as it is. An IPv6 address is cut at
 * its `::`, or behind the third group, whichever comes first.
 *
 * @param instr the database's function of a text and a part, which returns the part's position, from 1, or 0
 */
export function networkOfAddress(instr: string): string {
  const first = `${instr}(address, ':')`;
  const second = `${first} + ${instr}(substr(address, ${first} + 1), ':')`;
  const third = `${second} + ${instr}(substr(address, ${second} + 1), ':')`;
  return `case
  when ${instr}(address, '/') > 0 or (${instr}(address, '.') = 0 and ${instr}(address, ':') = 0) then address
  when ${instr}(address, ':') = 0 then rtrim(address, '0123456789') || '0/24'
  when ${instr}(address, '::') between 1 and ${third} then substr(address, 1, ${instr}(address, '::') - 1) || '::/48'
  else substr(address, 1, ${third} - 1) || '::/48' end`;
}

/** {@link networkOfAddress} in SQLite's dialect. */
export const NETWORK_OF_ADDRESS = networkOfAddress('instr');
