import { authenticate, requireRole } from '../../middlewares/auth.middleware';
import { guard } from '../../middlewares/guard.middleware';
import { idempotent } from '../../middlewares/idempotent.middleware';
import type { IdempotentOptions } from '../../middlewares/idempotent.middleware';
import { policy } from '../../middlewares/policy';
import { rateLimiter } from '../../middlewares/rateLimiter.middleware';

/** The guard of every route under `/v1/admin`. */
export const adminOnly = () => guard(rateLimiter(policy.admin), authenticate(), requireRole('admin'));
/** The same with `idempotent()`. */
export const adminOnce = (options: IdempotentOptions) =>
  guard(rateLimiter(policy.admin), authenticate(), requireRole('admin'), idempotent(options));
