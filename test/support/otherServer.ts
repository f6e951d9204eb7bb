import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

interface OtherAnswer {
  status: number;
  type: string;
  body: string;
}

/** A server in Redis's place, whose response to each request's body the test decides. */
export async function startOtherServer(
  answer: (body: string) => OtherAnswer,
): Promise<AsyncDisposable & { url: string }> {
  const server = createServer((request, response) => {
    void text(request).then((sent) => {
      const { status, type, body } = answer(sent);
      response.writeHead(status, { 'Content-Type': type }).end(body);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
