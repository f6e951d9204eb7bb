import type { Question } from '../question.ts';
import { cache } from './cache/cache.ts';
import { gateway } from './gateway/gateway.ts';
import { guardedGet } from './guarded-get/guarded-get.ts';
import { memory } from './memory/memory.ts';
import { outages } from './outages/outages.ts';
import { rateLimit } from './rate-limit/rate-limit.ts';
import { refresh } from './refresh/refresh.ts';

/** Every question, in the order in which `npm run bench` asks them. */
export const QUESTIONS: readonly Question[] = [guardedGet, gateway, rateLimit, refresh, cache, memory, outages];
