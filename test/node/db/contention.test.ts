import { afterAll, beforeAll, describe, inject } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { UNLIMITED, startApp } from '../../support/app.ts';
import { MOST_SESSIONS, contention } from '../../support/database/contention.ts';
import type { Contended } from '../../support/database/contention.ts';
import { startMailbox } from '../../support/mailbox.ts';

const TOKEN = 'contention-token';

describe('on D1', () => {
  let scene: Contended;
  let gateway: Awaited<ReturnType<typeof startGateway>>;

  beforeAll(async () => {
    gateway = await startGateway({ token: TOKEN, port: 0 });
    const mailbox = await startMailbox();
    const app = await startApp({
      bundle: inject('workerBundle'),
      redis: { url: gateway.url, token: TOKEN },
      settings: { ...UNLIMITED, SESSIONS_PER_USER: String(MOST_SESSIONS) },
      isolates: 2,
      email: mailbox,
    });
    scene = { app, mailbox };
  });
  afterAll(async () => {
    await scene.app[Symbol.asyncDispose]();
    await scene.mailbox[Symbol.asyncDispose]();
    await gateway[Symbol.asyncDispose]();
  });

  contention(() => scene);
});
