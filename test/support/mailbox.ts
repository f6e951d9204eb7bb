import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

/** A mail as the app gave it to the platform. */
export interface ReceivedMail {
  from: { email: string; name: string };
  to: string;
  subject: string;
  text: string;
  html?: string;
}

/** What becomes of the next mails: accepted, refused, or left without a response. */
export type MailFault = 'none' | 'refuse' | 'hang';

/** A mail server behind the app's `EMAIL` binding, over RPC as the platform's own. */
export interface Mailbox extends AsyncDisposable {
  /** Source of a Worker whose entrypoint `Mailbox` is what the app is bound to. */
  readonly worker: string;
  readonly mails: readonly ReceivedMail[];
  fault: MailFault;
  /** How often the app tried to send something to this address, whatever became of it. */
  attemptsTo(email: string): number;
  /** Waits for the next mail to this address, and returns the token in it. */
  tokenFor(email: string): Promise<string>;
}

export async function startMailbox(): Promise<Mailbox> {
  const mails: ReceivedMail[] = [];
  const attempts: string[] = [];
  const server = createServer((request, response) => {
    void json(request).then((body) => {
      const mail = body as ReceivedMail;
      attempts.push(mail.to);
      if (mailbox.fault === 'hang') return;
      if (mailbox.fault === 'none') mails.push(mail);
      response.writeHead(mailbox.fault === 'none' ? 200 : 500).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const mailbox: Mailbox = {
    fault: 'none',
    mails,
    attemptsTo: (email) => attempts.filter((to) => to === email).length,
    worker: `
      import { WorkerEntrypoint } from 'cloudflare:workers';
      export class Mailbox extends WorkerEntrypoint {
        async send(mail) {
          const { ok } = await fetch('http://127.0.0.1:${port}', { method: 'POST', body: JSON.stringify(mail) });
          // What a server says may quote the address.
          if (!ok) throw new Error('cannot deliver to ' + mail.to);
          return { messageId: '<1@mailbox.test>' };
        }
      }
      export default { fetch: () => new Response(null, { status: 404 }) };`,
    async tokenFor(email) {
      for (let waited = 0; waited < 10_000; waited += 20) {
        const index = mails.findIndex(({ to }) => to === email);
        const token = /got[rvcud]1\.[\w-]{43}/.exec(mails.splice(index, index === -1 ? 0 : 1)[0]?.text ?? '')?.[0];
        if (token !== undefined) return token;
        await sleep(20);
      }
      throw new Error('no mail within 10 s');
    },
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
  return mailbox;
}
