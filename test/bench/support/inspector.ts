import { setTimeout } from 'node:timers/promises';

/** The result of `Runtime.getHeapUsage` of the DevTools protocol, in bytes. */
interface HeapUsage {
  usedSize: number;
  embedderHeapUsedSize?: number;
  backingStorageSize?: number;
}

/** So often the heap may be collected until it no longer falls. */
const MAX_COLLECTIONS = 20;
/** A fall by less is noise, in bytes. */
const FALL = 4_096;
/** Finalizers, and the runtime's own objects that they release, take a turn of its event loop. */
const PAUSE_MS = 50;

/**
 * Bytes that an isolate's heap holds: objects, buffers, and the runtime's objects on its C++ heap, after as many forced
 * collections as make it smaller. Connected only as long as this takes: an attached inspector keeps objects alive.
 *
 * @param inspector `host:port`
 * @param worker whose heap it is; a Node process has one target alone
 */
export async function heapOf(inspector: string, worker?: { name: string; url: string }): Promise<number> {
  await using session = await connect(await targetOf(inspector, worker?.name));
  let least = Infinity;
  let unchanged = 0;
  for (let collection = 0; collection < MAX_COLLECTIONS && unchanged < 3; collection += 1) {
    let isCollected = false;
    const collected = session.send('HeapProfiler.collectGarbage').finally(() => (isCollected = true));
    await setTimeout(PAUSE_MS);
    if (worker !== undefined) await serveUntil(() => isCollected, worker.url);
    await collected;
    const {
      usedSize,
      embedderHeapUsedSize = 0,
      backingStorageSize = 0,
    } = await session.send<HeapUsage>('Runtime.getHeapUsage');
    const bytes = usedSize + embedderHeapUsedSize + backingStorageSize;
    unchanged = bytes < least - FALL ? 0 : unchanged + 1;
    least = Math.min(least, bytes);
  }
  return least;
}

/** workerd collects in a task, and runs an isolate's tasks while that serves a request. */
async function serveUntil(isDone: () => boolean, url: string): Promise<void> {
  while (!isDone()) {
    await (await fetch(url)).text();
    await setTimeout(PAUSE_MS);
  }
}

/** A node of a sampling heap profile: what a function allocated, called by the node above it. */
interface AllocationNode {
  callFrame: { functionName: string };
  selfSize: number;
  children: AllocationNode[];
}

/**
 * Bytes, by samples, that functions of this name allocate in an isolate while `work` is done, and that no collection of young
 * objects frees before its end. What has been allocated since the last one is among them.
 */
export async function survivingBytes(
  inspector: string,
  worker: string,
  { allocatedBy, work }: { allocatedBy: string; work: () => Promise<unknown> },
): Promise<number> {
  await using session = await connect(await targetOf(inspector, worker));
  await session.send('HeapProfiler.startSampling', { includeObjectsCollectedByMajorGC: true });
  await work();
  const { profile } = await session.send<{ profile: { head: AllocationNode } }>('HeapProfiler.stopSampling');
  const sum = (node: AllocationNode, isWithin: boolean): number => {
    const counts = isWithin || node.callFrame.functionName === allocatedBy;
    return node.children.reduce((bytes, child) => bytes + sum(child, counts), counts ? node.selfSize : 0);
  };
  return sum(profile.head, false);
}

async function targetOf(inspector: string, name: string | undefined): Promise<string> {
  const response = await fetch(`http://${inspector}/json`);
  const targets = (await response.json()) as { id: string; webSocketDebuggerUrl: string }[];
  const target = targets.find(({ id }) => name === undefined || id === name || id.endsWith(`:${name}`));
  if (target === undefined) {
    throw new Error(`the inspector has no target "${name}" (it has: ${targets.map(({ id }) => id).join(', ')})`);
  }
  return target.webSocketDebuggerUrl;
}

interface Session extends AsyncDisposable {
  send<T>(method: string, params?: object): Promise<T>;
}

async function connect(url: string): Promise<Session> {
  const socket = new WebSocket(url);
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let lastId = 0;
  const fail = () => {
    for (const { reject } of waiting.values()) reject(new Error('the inspector closed the connection'));
    waiting.clear();
  };
  socket.addEventListener('close', fail);
  socket.addEventListener('message', ({ data }) => {
    const message = JSON.parse(String(data)) as { id?: number; result?: unknown; error?: { message: string } };
    const call = waiting.get(message.id ?? 0);
    waiting.delete(message.id ?? 0);
    if (message.error === undefined) call?.resolve(message.result);
    else call?.reject(new Error(`the inspector refused: ${message.error.message}`));
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve());
    socket.addEventListener('error', () => reject(new Error('the inspector cannot be reached')));
  });
  return {
    send<T>(method: string, params: object = {}) {
      lastId += 1;
      const call = Promise.withResolvers<unknown>();
      waiting.set(lastId, call);
      socket.send(JSON.stringify({ id: lastId, method, params }));
      return call.promise as Promise<T>;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => socket.addEventListener('close', resolve));
      socket.close();
      await closed;
    },
  };
}
