import { sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

/** SQL that differs between the engines. All other SQL in services must run on each engine. */
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

/** A condition as 1 or 0. */
export const flag = (condition: SQL): SQL<number> => sql`case when ${condition} then 1 else 0 end`;
/** A condition that is always true. */
export const always = sql`true`;
