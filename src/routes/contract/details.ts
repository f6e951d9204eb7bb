import { describe, describeTag } from './describe';
import type { ResponseDetails } from './describe';
import * as bodies from './responses';

const done = (description: string): ResponseDetails => ({ description });
const user: ResponseDetails = { description: 'The account.', body: bodies.user };
const mailed: ResponseDetails = {
  description: 'A mail is on its way, if there is an account.',
  body: bodies.accepted,
};

describeTag('Sign-in', 'Accounts, sessions and their tokens.');
describeTag('Account', 'The account and devices of a signed-in user.');
describeTag('Administration', 'For users with the role `admin`.');
describeTag('Service', 'The service itself.');

describe('POST /v1/auth/register', {
  id: 'register',
  summary: 'Create an account',
  tag: 'Sign-in',
  responses: { 201: { description: 'The account, signed in.', body: bodies.signedIn } },
  codes: ['EMAIL_TAKEN', 'TOKEN_REVOKED'],
});
describe('POST /v1/auth/login', {
  id: 'login',
  summary: 'Sign in',
  tag: 'Sign-in',
  responses: { 200: { description: 'A new session.', body: bodies.signedIn } },
  codes: ['INVALID_CREDENTIALS', 'ACCOUNT_DISABLED', 'TOKEN_REVOKED'],
});
describe('POST /v1/auth/refresh', {
  id: 'refresh',
  summary: 'Exchange a refresh token for new tokens',
  description:
    'A refresh whose response was lost is repeated with the same token, and gets the same successor. One refresh at a time runs in an app.',
  repeatable: 'The same token always gets the same successor, so a repeat needs no key.',
  tag: 'Sign-in',
  responses: { 200: { description: 'The next tokens of the session.', body: bodies.tokenPair } },
});
describe('POST /v1/auth/revoke', {
  id: 'revoke',
  summary: 'Revoke a token (RFC 7009)',
  description: 'A refresh token’s session ends; an access token alone is refused from now on.',
  repeatable: 'A token that is revoked already stays so, so a repeat needs no key.',
  tag: 'Sign-in',
  responses: { 200: { description: 'The token is no longer valid, or never was.', body: bodies.nothing } },
});
describe('POST /v1/auth/logout', {
  id: 'logout',
  summary: 'End this session',
  tag: 'Sign-in',
  responses: { 204: done('The session has ended.') },
});
describe('POST /v1/auth/logout-all', {
  id: 'logoutEverywhere',
  summary: 'End all sessions of the user',
  tag: 'Sign-in',
  responses: { 204: done('All sessions have ended.') },
});
describe('POST /v1/auth/reauthenticate', {
  id: 'reauthenticate',
  summary: 'Prove the password again in this session',
  description:
    'For operations that respond with `REAUTHENTICATION_REQUIRED`: they accept the access token of this response for some minutes.',
  repeatable: 'A repeat proves the password once more and needs no key.',
  tag: 'Account',
  responses: { 200: { description: 'A new access token of this session.', body: bodies.freshToken } },
  codes: ['PASSWORD_INCORRECT'],
});
describe('POST /v1/auth/password', {
  id: 'changePassword',
  summary: 'Change the password',
  description: 'Ends every other session, and every access token; this session gets new tokens.',
  tag: 'Account',
  responses: { 200: { description: 'The new tokens of this session.', body: bodies.tokenPair } },
  codes: ['PASSWORD_INCORRECT'],
});
describe('POST /v1/auth/recovery', {
  id: 'requestRecovery',
  summary: 'Ask for a mail that recovers the password',
  description: 'The response does not reveal whether there is an account.',
  tag: 'Account',
  responses: { 202: mailed },
});
describe('POST /v1/auth/recovery/confirm', {
  id: 'resetPassword',
  summary: 'Set a new password with the token of a mail',
  description: 'Ends every session of the user, who then signs in.',
  tag: 'Account',
  responses: { 204: done('The new password counts.') },
  codes: ['ONE_TIME_TOKEN_INVALID'],
});
describe('POST /v1/auth/verification', {
  id: 'requestVerification',
  summary: 'Ask for a mail that verifies the address',
  tag: 'Account',
  responses: { 202: mailed },
});
describe('POST /v1/auth/verification/confirm', {
  id: 'verifyEmail',
  summary: 'Verify the address with the token of a mail',
  tag: 'Account',
  responses: { 204: done('The address is verified.') },
  codes: ['ONE_TIME_TOKEN_INVALID'],
});
describe('GET /v1/users/me', { id: 'getMe', summary: 'Your account', tag: 'Account', responses: { 200: user } });
describe('PATCH /v1/users/me', {
  id: 'updateMe',
  summary: 'Change your account',
  tag: 'Account',
  responses: { 200: user },
});
describe('DELETE /v1/users/me', {
  id: 'deleteMe',
  summary: 'Delete your account',
  tag: 'Account',
  responses: { 204: done('The account is deleted; its sessions have ended.') },
  codes: ['LAST_ADMINISTRATOR'],
});
describe('POST /v1/users/me/email', {
  id: 'changeEmail',
  summary: 'Ask for another e-mail address',
  description:
    'Mails a token to the new address, unless it has an account already, which the response does not reveal. Needs a fresh sign-in.',
  tag: 'Account',
  responses: { 202: mailed },
});
describe('POST /v1/auth/email/confirm', {
  id: 'confirmEmailChange',
  summary: 'Confirm the new e-mail address with the token of a mail',
  description: 'Sessions go on. The old address gets a mail with a token that undoes the change.',
  tag: 'Account',
  responses: { 204: done('The account has the new address.') },
  codes: ['ONE_TIME_TOKEN_INVALID'],
});
describe('POST /v1/auth/email/undo', {
  id: 'undoEmailChange',
  summary: 'Undo a change of the e-mail address',
  description:
    'With the token that was mailed to the old address. Ends every session, and the password; another mail lets the owner set a new one.',
  tag: 'Account',
  responses: { 204: done('The account has the old address again.') },
  codes: ['ONE_TIME_TOKEN_INVALID'],
});
describe('POST /v1/auth/deletion', {
  id: 'requestDeletion',
  summary: 'Ask for a mail that deletes the account',
  description:
    'Without a session, for owners who have the app no more. The response does not reveal whether there is an account.',
  tag: 'Account',
  responses: { 202: mailed },
});
describe('POST /v1/auth/deletion/confirm', {
  id: 'confirmDeletion',
  summary: 'Delete the account with the token of a mail',
  description: 'Everything that is stored of the account is deleted, and cannot be restored.',
  tag: 'Account',
  responses: { 204: done('The account is deleted; its sessions have ended.') },
  codes: ['ONE_TIME_TOKEN_INVALID', 'LAST_ADMINISTRATOR'],
});
describe('GET /v1/users/me/export', {
  id: 'exportAccount',
  summary: 'Everything that is stored of your account',
  description: 'Needs a fresh sign-in. Secrets are left out: hashes of the password, of tokens and of addresses.',
  tag: 'Account',
  responses: { 200: { description: 'Of one moment.', body: bodies.accountExport } },
});
describe('GET /v1/users/me/events', {
  id: 'listMyEvents',
  summary: 'The last 50 events of your account',
  tag: 'Account',
  responses: { 200: { description: 'Newest first.', body: bodies.accountEventList } },
});
describe('GET /v1/sessions', {
  id: 'listSessions',
  summary: 'Your sessions',
  tag: 'Account',
  responses: {
    200: {
      description: 'All of them, last seen first: `limit` and `total` are their number.',
      body: bodies.sessionList,
    },
  },
});
describe('DELETE /v1/sessions/{id}', {
  id: 'endSession',
  summary: 'End one of your sessions',
  tag: 'Account',
  responses: { 204: done('The session has ended.') },
  codes: ['NOT_FOUND'],
});
describe('GET /v1/users', {
  id: 'listUsers',
  summary: 'All accounts',
  tag: 'Administration',
  responses: { 200: { description: 'A page, oldest account first.', body: bodies.userList } },
});
describe('GET /v1/users/{id}', {
  id: 'getUser',
  summary: 'An account',
  tag: 'Administration',
  responses: { 200: user },
  codes: ['NOT_FOUND'],
});
describe('PATCH /v1/users/{id}', {
  id: 'updateUser',
  summary: 'Change an account',
  tag: 'Administration',
  responses: { 200: user },
  codes: ['NOT_FOUND', 'LAST_ADMINISTRATOR'],
});
describe('GET /v1/admin/metrics', {
  id: 'getMetrics',
  summary: 'Time series of what all isolates measure, and the current state',
  tag: 'Administration',
  responses: { 200: { description: 'The range, and what was counted in each step of it.', body: bodies.metrics } },
});
describe('GET /v1/admin/warming', {
  id: 'listWarmingJobs',
  summary: 'Warming jobs and how far they have come',
  tag: 'Administration',
  responses: { 200: { description: 'All jobs.', body: bodies.warmingJobs } },
});
describe('POST /v1/admin/warming/{job}', {
  id: 'runWarmingJob',
  summary: 'Run one slice of a warming job',
  repeatable: 'A repeat runs another slice, which changes nothing but the cache, and needs no key.',
  tag: 'Administration',
  responses: {
    200: { description: 'The run is complete.', body: bodies.warmingJob },
    202: { description: 'There is more to do.', body: bodies.warmingJob },
  },
  codes: ['NOT_FOUND', 'CONFLICT'],
});
describe('GET /', {
  id: 'getIndex',
  summary: 'Name, version and links',
  tag: 'Service',
  responses: { 200: { description: 'Name, version and links.', body: bodies.index } },
});
describe('GET /health', {
  id: 'getHealth',
  summary: 'Whether the process runs',
  tag: 'Service',
  responses: { 200: { description: 'It runs.', body: bodies.health } },
});
describe('GET /ready', {
  id: 'getReadiness',
  summary: 'Whether the dependencies are there',
  tag: 'Service',
  responses: {
    200: { description: 'It serves.', body: bodies.readiness },
    503: { description: 'Neither Redis nor the database is there.', body: bodies.readiness },
  },
});
describe('GET /metrics', {
  id: 'getPrometheusMetrics',
  summary: 'Counters and histograms for Prometheus',
  description:
    'With the token `METRICS_TOKEN` as bearer, or an administrator’s. While Redis is away `gatehouse_metrics_complete` is 0, ' +
    'and each series is of the isolate that its label `gatehouse_isolate` names.',
  tag: 'Service',
  responses: {
    200: { description: 'The text format 0.0.4.', body: bodies.prometheusText, mediaType: 'text/plain' },
  },
});
describe('GET /.well-known/jwks.json', {
  id: 'getKeys',
  summary: 'Public keys of the access tokens',
  tag: 'Service',
  responses: { 200: { description: 'The keys.', body: bodies.jwks, headers: ['Vary'] } },
});
