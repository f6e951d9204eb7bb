import { AppError } from './errors';
import { UserService } from './services/user.service';
import type { UserQuery } from './services/user.service';
import type { WarmingJob } from './services/warming.service';

/** How many pages of the users' list are kept, with the API's default length. */
const PAGES = 3;

/**
 * The first pages of the administrators' list of users. A load reads one page of the index and its users; a trigger keeps the
 * total, so nothing is counted.
 */
const userLists: WarmingJob<UserQuery> = {
  name: 'user-lists',
  everySeconds: 60,
  total: () => Promise.resolve(PAGES),
  page: (cursor, limit) => {
    const first = Number(cursor) + 1;
    const last = Math.min(PAGES, first + limit - 1);
    const items = Array.from({ length: last - first + 1 }, (_, index) => ({ page: first + index, limit: 20 }));
    return Promise.resolve({ items, next: last < PAGES ? String(last) : null });
  },
  warm: (query) => UserService.getUsers(query),
};

/** Users who were active within this time are likely to return. */
const ACTIVE_MS = 86_400_000;

/** Accounts of recently active users, for when Redis has lost its data: loaded before all their devices ask for them at once. */
const activeUsers: WarmingJob<string> = {
  name: 'active-users',
  page: async (cursor, limit) => {
    const items = await UserService.activeIds(Date.now() - ACTIVE_MS, cursor, limit);
    return { items, next: items.length < limit ? null : (items.at(-1) ?? null) };
  },
  warm: async (userId) => {
    try {
      await UserService.getUser(userId);
    } catch (error) {
      // The user was deleted meanwhile.
      if (!(error instanceof AppError && error.code === 'NOT_FOUND')) throw error;
    }
  },
};

/** Your own jobs go here. */
export const warmingJobs: readonly WarmingJob[] = [userLists, activeUsers];
