interface Waiting {
  resolve(result: { done: boolean; value?: Uint8Array }): void;
  reject(error: Error): void;
}

/** A socket of `cloudflare:sockets`, as far as its users look (https://developers.cloudflare.com/workers/runtime-apis/tcp-sockets/). */
export class SimulatedSocket {
  readonly closed: Promise<void>;
  readonly readable = { getReader: () => ({ read: () => this.#read() }) };
  readonly writable = {
    getWriter: () => ({ ready: Promise.resolve(), write: async (bytes: Uint8Array) => this.#send(bytes) }),
  };
  readonly #write: (bytes: Uint8Array) => void;
  readonly #settle: { resolve(): void; reject(error: Error): void };
  #arrived: Uint8Array[] = [];
  #waiting: Waiting | undefined;
  #end: 'done' | Error | undefined;

  /** @param write called with what is written, until an end */
  constructor(write: (bytes: Uint8Array) => void) {
    this.#write = write;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settle = { resolve, reject };
  }

  async close(): Promise<void> {
    this.finish();
  }

  /** The other side has sent something. */
  deliver(bytes: Uint8Array): void {
    if (this.#end !== undefined) return;
    this.#arrived.push(bytes);
    this.#pulse();
  }

  /** One side has closed it. */
  finish(): void {
    if (this.#end !== undefined) return;
    this.#end = 'done';
    this.#settle.resolve();
    this.#pulse();
  }

  /** It breaks. */
  break(): void {
    if (this.#end !== undefined) return;
    this.#end = new Error('Network connection lost.');
    this.#settle.reject(this.#end);
    this.#pulse();
  }

  #send(bytes: Uint8Array): void {
    if (this.#end instanceof Error) throw this.#end;
    if (this.#end === 'done') throw new TypeError('This WritableStream has been closed.');
    this.#write(bytes);
  }

  #read(): Promise<{ done: boolean; value?: Uint8Array }> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#pulse();
    });
  }

  #pulse(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    const value = this.#arrived.shift();
    if (value === undefined && this.#end === undefined) return;
    this.#waiting = undefined;
    if (value !== undefined) waiting.resolve({ done: false, value });
    else if (this.#end instanceof Error) waiting.reject(this.#end);
    else waiting.resolve({ done: true });
  }
}
