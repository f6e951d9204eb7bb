import { sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

/** SQL on which the engines do not agree. What services write apart from these must run on each engine. */
export {
  POSITION_FUNCTION,
  anyOf,
  asNumber,
  asText,
  greatest,
  jsonMap,
  jsonObject,
  least,
  nextNumber,
  positionOf,
  rowsOf,
  unionAll,
} from '#db';

/** A condition as a number: 1 or 0. */
export const flag = (condition: SQL): SQL<number> => sql`case when ${condition} then 1 else 0 end`;
/** The condition that always holds. */
export const always = sql`true`;
