import * as bodies from './adminResponses';
import { describe } from './describe';
import { accepted, accountEventList, limitStates, warmingJob } from './responses';

const tag = 'Administration';

describe('DELETE /v1/admin/users/{id}', {
  id: 'deleteUser',
  summary: 'Delete an account',
  tag,
  responses: { 204: { description: 'The account is deleted; its sessions have ended.' } },
  codes: ['NOT_FOUND', 'LAST_ADMINISTRATOR'],
});
describe('GET /v1/admin/users/{id}/sessions', {
  id: 'listSessionsOfUser',
  summary: 'Sessions of an account, and why each ended',
  description: 'An ended session is listed until it would have expired.',
  tag,
  responses: { 200: { description: 'Newest first.', body: bodies.knownSessionList } },
  codes: ['NOT_FOUND'],
});
describe('DELETE /v1/admin/users/{id}/sessions', {
  id: 'endSessionsOfUser',
  summary: 'End all sessions of an account',
  description: 'The account stays enabled: its owner may sign in again.',
  tag,
  responses: { 204: { description: 'All sessions have ended.' } },
  codes: ['NOT_FOUND'],
});
describe('DELETE /v1/admin/users/{id}/sessions/{session}', {
  id: 'endSessionOfUser',
  summary: 'End one session of an account',
  tag,
  responses: { 204: { description: 'The session has ended.' } },
  codes: ['NOT_FOUND'],
});
describe('GET /v1/admin/users/{id}/events', {
  id: 'listEventsOfUser',
  summary: 'The last 50 events of an account',
  tag,
  responses: { 200: { description: 'Newest first.', body: accountEventList } },
  codes: ['NOT_FOUND'],
});
describe('DELETE /v1/admin/users/{id}/cache', {
  id: 'clearCacheOfUser',
  summary: 'Invalidate what is cached of an account',
  repeatable: 'A repeat invalidates once more and needs no key.',
  tag,
  responses: { 200: { description: 'Invalidated.', body: bodies.invalidation } },
  codes: ['NOT_FOUND'],
});
describe('POST /v1/admin/users/{id}/recovery', {
  id: 'sendRecovery',
  summary: 'Mail the owner of an account a link to a new password',
  tag,
  responses: { 202: { description: 'A mail is on its way.', body: accepted } },
  codes: ['NOT_FOUND', 'ACCOUNT_DISABLED'],
});
describe('POST /v1/admin/sessions/end', {
  id: 'endEveryonesSessions',
  summary: 'End the sessions of everyone but you',
  description: 'Some hundred users a call: call again with `after` set to `next`, until `next` is `null`.',
  tag,
  responses: { 200: { description: 'Their sessions have ended.', body: bodies.endedSessions } },
});
describe('GET /v1/admin/audit', {
  id: 'listAudit',
  summary: 'Actions of administrators',
  tag,
  responses: { 200: { description: 'Newest first.', body: bodies.auditList } },
});
describe('GET /v1/admin/limits', {
  id: 'listLimits',
  summary: 'Every rate limiter, with the numbers that count',
  tag,
  responses: { 200: { description: 'In the order of the routes.', body: bodies.limiterList } },
});
describe('POST /v1/admin/limits/peek', {
  id: 'peekLimit',
  summary: 'The remaining requests of an identity in a rate limit',
  description:
    'The identity is typed as people know it: an e-mail address, an IP address in any spelling, the id of a user or a session; for `login` an e-mail address and an IP address. One that the limiter does not count by is an error.',
  repeatable: 'It changes nothing, so a repeat needs no key.',
  tag,
  responses: { 200: { description: 'Each window of the policy.', body: limitStates } },
});
describe('POST /v1/admin/limits/reset', {
  id: 'resetLimit',
  summary: 'Forget what a rate limit has counted for an identity',
  tag,
  responses: { 204: { description: 'Nothing is counted.' } },
});
describe('POST /v1/admin/limits/override', {
  id: 'overrideLimit',
  summary: 'Set other numbers for a rate limit, without a deployment',
  description: 'They count everywhere within `LIMIT_OVERRIDES_SECONDS` (20 s); where `pending` is true, within 90 s.',
  tag,
  responses: { 200: { description: 'The numbers are stored.', body: bodies.invalidation } },
});
describe('POST /v1/admin/limits/restore', {
  id: 'restoreLimit',
  summary: 'Let the app’s own numbers of a rate limit count again',
  tag,
  responses: { 200: { description: 'The override is gone.', body: bodies.invalidation } },
});
describe('POST /v1/admin/cache/invalidate', {
  id: 'invalidateCache',
  summary: 'Invalidate namespaces, tags or users',
  repeatable: 'A repeat invalidates once more and needs no key.',
  tag,
  responses: { 200: { description: 'Invalidated.', body: bodies.invalidation } },
});
describe('DELETE /v1/admin/warming/{job}', {
  id: 'stopWarmingJob',
  summary: 'Stop the run of a warming job',
  description: 'A job that runs regularly begins its next run in its time.',
  repeatable: 'A run that has stopped stays so; a repeat needs no key.',
  tag,
  responses: {
    200: { description: 'Nothing runs.', body: warmingJob },
    202: { description: 'It stops after the items that it has started.', body: warmingJob },
  },
  codes: ['NOT_FOUND'],
});
describe('GET /v1/admin/keys', {
  id: 'listKeySets',
  summary: 'Ages of the keys, and the next step of each rotation',
  tag,
  responses: { 200: { description: 'The key sets.', body: bodies.keySetList } },
});
describe('GET /v1/admin/settings', {
  id: 'listSettings',
  summary: 'Settings as they count; secrets are masked',
  tag,
  responses: { 200: { description: 'All settings.', body: bodies.settingList } },
});
