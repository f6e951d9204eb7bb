import { AsyncLocalStorage } from 'node:async_hooks';

/** The services of a request by name. Each service module adds its own by declaration merging. */
// oxlint-disable-next-line typescript/no-empty-interface, typescript/no-empty-object-type -- filled by the service modules
export interface ServiceMap {}

const storage = new AsyncLocalStorage<ServiceMap>();

/** Runs `fn`, and everything that it starts, with these services behind the facades. */
export function runWithServices<T>(services: ServiceMap, fn: () => T): T {
  return storage.run(services, fn);
}

/** @throws {Error} outside a request */
export function currentServices(): ServiceMap {
  const services = storage.getStore();
  if (services === undefined) {
    throw new Error(
      'No services here: the static calls (RedisService.get(…) and the like) work inside a request. ' +
        'Elsewhere wrap the code in runWithServices(createServices(…), fn).',
    );
  }
  return services;
}

/**
 * An object that forwards every call to the current request's service of that name.
 *
 * @example
 * export const UserService: UserService = facade('user');
 */
export function facade<K extends keyof ServiceMap>(name: K): ServiceMap[K] {
  return new Proxy(Object.freeze({}) as unknown as ServiceMap[K] & object, {
    get: (_, property) => Reflect.get(currentServices()[name], property) as unknown,
  });
}
