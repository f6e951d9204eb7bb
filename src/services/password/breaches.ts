import { createHash } from 'node:crypto';

import type { Config } from '../../config/env';
import { log } from '../../config/log';
import { createInstruments } from '../../metrics/instruments';
import type { Instruments } from '../../metrics/instruments';

export type BreachInstruments = Pick<Instruments, 'breachLookups'>;

/** Why a lookup failed. */
type Failure = 'network' | 'timeout' | 'status' | 'format' | 'too-large';

class LookupFailed extends Error {
  override readonly name = 'LookupFailed';
  readonly reason: Failure;

  constructor(reason: Failure) {
    super(reason);
    this.reason = reason;
  }
}

/** How many hexadecimal digits of the hash are sent. */
const PREFIX = 5;
/** A padded range of Have I Been Pwned has some 1,000 lines of 40 bytes. */
const MAX_BYTES = 512 * 1_024;
/** The rest of a SHA-1, and how often the password was seen. Padding lines have 0. */
const LINE = /^([0-9A-F]{35}):(\d{1,12})$/;

export interface BreachDeps {
  /** `undefined`: no lookups. */
  settings: Config['passwords']['breaches'];
  instruments?: BreachInstruments | undefined;
  fetch?: typeof globalThis.fetch | undefined;
}

/** Whether a password is known from a breach; `false` if the lookup fails. */
export type IsBreached = (password: string) => Promise<boolean>;

/**
 * Looks passwords up in a service with the range API of Have I Been Pwned (k-anonymity): the first five hexadecimal digits
 * of the password's SHA-1 are sent; the response lists the rest of all known hashes with these digits. The service learns
 * neither the password nor its owner. A failed lookup accepts the password: an outage of another service must not stop
 * registrations. The failure is logged and counted, without the digits.
 */
export function createBreachLookup({
  settings,
  instruments = createInstruments(),
  fetch = (...request) => globalThis.fetch(...request),
}: BreachDeps): IsBreached {
  const { url, deadlineMs } = settings;
  if (url === undefined) return () => Promise.resolve(false);

  async function read(prefix: string, signal: AbortSignal): Promise<string> {
    const response = await fetch(`${url}${prefix}`, {
      signal,
      redirect: 'manual',
      headers: { 'User-Agent': 'gatehouse', 'Add-Padding': 'true', Accept: 'text/plain' },
    });
    if (response.status === 200) return textOf(response);
    await response.body?.cancel();
    throw new LookupFailed('status');
  }

  /** One deadline for headers and body together; the signal alone might end only the wait for the headers. */
  async function rangeOf(prefix: string): Promise<string> {
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new LookupFailed('timeout'));
        controller.abort();
      }, deadlineMs);
    });
    try {
      return await Promise.race([read(prefix, controller.signal), late]);
    } catch (error) {
      throw error instanceof LookupFailed ? error : new LookupFailed('network');
    } finally {
      clearTimeout(timer);
    }
  }

  return async function isBreached(password) {
    const hash = createHash('sha1').update(password.normalize('NFC')).digest('hex').toUpperCase();
    try {
      const isFound = isListed(await rangeOf(hash.slice(0, PREFIX)), hash.slice(PREFIX));
      instruments.breachLookups.count(isFound ? 'found' : 'absent');
      return isFound;
    } catch (error) {
      if (!(error instanceof LookupFailed)) throw error;
      instruments.breachLookups.count('failed');
      log('warn', 'password.breach_lookup_failed', { reason: error.reason });
      return false;
    }
  };
}

/** The body, unless it is larger than a range can be. */
async function textOf({ body }: Response): Promise<string> {
  const decoder = new TextDecoder();
  let [text, bytes] = ['', 0];
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength;
    // Leaving the loop cancels the body.
    if (bytes > MAX_BYTES) throw new LookupFailed('too-large');
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

function isListed(range: string, suffix: string): boolean {
  const lines = range.trim().split(/\r?\n/);
  let isFound = false;
  for (const line of lines) {
    const [, listed, seen] = LINE.exec(line.trim().toUpperCase()) ?? [];
    // The response of a proxy or of another service says nothing about passwords.
    if (listed === undefined) throw new LookupFailed('format');
    isFound ||= listed === suffix && Number(seen) > 0;
  }
  return isFound;
}
