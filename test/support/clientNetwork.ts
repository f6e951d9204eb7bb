/** What happens to a request on its way. */
export type NetworkFault =
  /** No connection: nothing arrives at the server. */
  | { kind: 'offline' }
  /** The server executes it, and the response is lost. */
  | { kind: 'lost' }
  /** Something else responds, such as a proxy or a captive portal. */
  | { kind: 'other'; status: number; body: string; headers?: Record<string, string> };

export interface Sent {
  /** `METHOD /path` */
  operation: string;
  headers: Headers;
  /** `undefined` when no response of the server arrived. */
  status?: number;
}

/** The network between a client and a server, in the hands of a test. */
export interface ClientNetwork {
  fetch: typeof fetch;
  /** Every request that the client has sent, in order. */
  readonly sent: readonly Sent[];
  count(operation: string): number;
  /** What requests meet from now on; without `times`, until it is cleared. */
  fault(fault: NetworkFault, aim?: { operation?: string; times?: number }): void;
  clear(): void;
  /** Holds back the next response to this operation, which the server has sent, until `release`. */
  hold(operation: string): { arrived: Promise<void>; release: () => void };
}

let addresses = 0;

export function clientNetwork(): ClientNetwork {
  const sent: Sent[] = [];
  let faults: { fault: NetworkFault; operation: string | undefined; left: number }[] = [];
  const holds: { operation: string; arrive: () => void; released: Promise<void> }[] = [];
  // Each client has an address of its own, so that what is counted by address does not add up.
  const address = `198.51.100.${(addresses = (addresses % 250) + 1)}`;

  async function fetchThrough(input: string | URL | Request, init: RequestInit = {}): Promise<Response> {
    const url = new URL(input instanceof Request ? input.url : input);
    const operation = `${init.method ?? 'GET'} ${url.pathname}`;
    const headers = new Headers(init.headers);
    const entry: Sent = { operation, headers: new Headers(headers) };
    sent.push(entry);
    headers.set('CF-Connecting-IP', address);

    const met = faults.find((candidate) => candidate.left > 0 && (candidate.operation ?? operation) === operation);
    if (met !== undefined) met.left -= 1;
    if (met?.fault.kind === 'offline') throw new TypeError('fetch failed');
    if (met?.fault.kind === 'other') {
      const { status, body, headers = { 'Content-Type': 'text/html' } } = met.fault;
      return new Response(body, { status, headers });
    }
    const response = await fetch(url, { ...init, headers });
    if (met?.fault.kind === 'lost') {
      await response.arrayBuffer();
      throw new TypeError('terminated');
    }
    const held = holds.findIndex((hold) => hold.operation === operation);
    if (held !== -1) {
      const [hold] = holds.splice(held, 1);
      hold!.arrive();
      await hold!.released;
    }
    entry.status = response.status;
    return dated(response);
  }

  return {
    fetch: fetchThrough,
    sent,
    count: (operation) => sent.filter((entry) => entry.operation === operation).length,
    fault(fault, { operation, times = Infinity } = {}) {
      faults.push({ fault, operation, left: times });
    },
    clear() {
      faults = [];
    },
    hold(operation) {
      const arrival = Promise.withResolvers<void>();
      const release = Promise.withResolvers<void>();
      holds.push({ operation, arrive: arrival.resolve, released: release.promise });
      return { arrived: arrival.promise, release: release.resolve };
    },
  };
}

/** With the `Date` that Cloudflare adds and workerd does not; not by `Date.now`, which stands for a device's clock. */
function dated({ status, headers, body }: Response): Response {
  const withDate = new Headers(headers);
  withDate.set('Date', new Date(performance.timeOrigin + performance.now()).toUTCString());
  return new Response(body, { status, headers: withDate });
}
