import { createServer } from 'node:net';

import { UserError } from './cli.ts';

/** `host:port` for a URL. */
export function authority(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** The address to call a server by that listens on `host`: a wildcard is no address to call. */
export function callable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  return host === '::' ? '::1' : host;
}

/**
 * Checks that a port can be listened on, before anything is started that would have to be stopped again.
 *
 * @param remedy how to choose another one
 * @throws {UserError} one line
 */
export async function assertPortFree(host: string, port: number, remedy: string): Promise<void> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const place = authority(host, port);
    if (code === 'EADDRINUSE') throw new UserError(`${place} is in use. Stop what listens there, or ${remedy}.`);
    throw new UserError(
      `${place} cannot be listened on (${code}): is it an address and port of this machine that you may use?`,
    );
  }
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
}
