import type { Account } from './model.ts';
import type { Fault } from './plan.ts';
import type { Disturbance, DisturbanceKind } from './timeline.ts';
import type { World } from './world.ts';

/** Lets go wrong what the plan says, and notes for how long it may show. */
export class Faults {
  readonly #world: World;
  readonly #accounts: readonly Account[];
  /** What is wrong at the moment, by what it is about: a later fault takes the place of an earlier one. */
  readonly #active = new Map<string, () => void>();

  readonly #bookmarks = new Map<string, () => void>();

  constructor(world: World, accounts: readonly Account[]) {
    this.#world = world;
    this.#accounts = accounts;
  }

  begin(fault: Fault): void {
    const world = this.#world;
    const { scheduler, timeline, redis, network, database } = world;
    const now = scheduler.nowMs;
    switch (fault.do) {
      case 'network': {
        const { mode, only } = fault;
        const whole = only === undefined && (mode === 'away' || mode === 'hang' || mode === 'status');
        this.#during('network', whole ? 'away' : 'unclear', fault.forMs, {
          begin: () => network.begin(mode, only),
          end: () => (network.mode = undefined),
          text: `Redis is ${mode}${onlyText(only)}`,
        });
        return;
      }
      case 'state':
        this.#during('state', 'state', fault.forMs, {
          begin: () => (redis.state = fault.state),
          end: () => (redis.state = undefined),
          text: `Redis says ${fault.state}`,
        });
        return;
      case 'refusal':
        this.#during('refusal', /:(?:auth|session):/.test(fault.part) ? 'refusal' : 'refusal-elsewhere', fault.forMs, {
          begin: () => (redis.refusal = fault),
          end: () => (redis.refusal = undefined),
          text: `Redis refuses ${fault.name} of ${fault.part} (${fault.kind})`,
        });
        return;
      case 'shard':
        this.#during(`shard ${fault.shard}`, 'shard', fault.forMs, {
          begin: () => redis.deadShards.add(fault.shard),
          end: () => redis.deadShards.delete(fault.shard),
          text: `shard ${fault.shard} is down`,
          shard: fault.shard,
        });
        return;
      case 'database': {
        const { mode, only } = fault;
        this.#during('database', 'database', fault.forMs, {
          begin: () => Object.assign(database.faults, { mode, only }),
          end: () => (database.faults.mode = undefined),
          text: `${database.name} is ${mode}${onlyText(only)}`,
        });
        return;
      }
      case 'database-fails':
        world.trace(() => `FAULT: the next ${fault.count} calls of ${database.name} fail`);
        database.faults.failNext = fault.count;
        timeline.note('database', now, now);
        return;
      case 'database-conflicts': {
        const { faults } = database;
        faults.conflicts = true;
        world.trace(() => `FAULT: transactions of ${database.name} meet others`);
        // A later one may end with an earlier one: conflicts are no outage, and excuse nothing.
        scheduler.after(fault.forMs, () => (faults.conflicts = false));
        return;
      }
      case 'database-saves': {
        const goBack = database.save();
        const forget = world.model.remember(this.#accounts, now);
        this.#bookmarks.set(fault.label, () => {
          goBack();
          forget(world.scheduler.nowMs);
        });
        return;
      }
      case 'database-restores':
        world.trace(() => `FAULT: ${database.name} goes back to ${fault.label}`);
        this.#bookmarks.get(fault.label)?.();
        timeline.note('restore', now, now);
        return;
      case 'flush':
        world.trace(() => `FAULT: Redis loses its data${shardText(fault.shard)}`);
        redis.flush(fault.shard);
        timeline.note('flush', now, now, fault.shard);
        return;
      case 'save':
        world.trace(() => `Redis writes its ${fault.label}`);
        redis.save(fault.label);
        return;
      case 'restore':
        world.trace(() => `FAULT: Redis goes back to its ${fault.label}${shardText(fault.shard)}`);
        redis.restore(fault.label, fault.shard);
        timeline.note('restore', now, now, fault.shard);
        return;
      case 'cron':
        void world.cron(fault.isolate);
        return;
      case 'kill':
        world.kill(fault.isolate);
        return;
      case 'clock': {
        const { clock, name } = world.isolates[fault.isolate]!;
        world.trace(() => `the clock of ${name} steps by ${fault.byMs} ms`);
        clock.offsetMs += fault.byMs;
      }
    }
  }

  /** Everything works again. */
  end(): void {
    for (const end of this.#active.values()) end();
    Object.assign(this.#world.database.faults, { failNext: 0, conflicts: false });
  }

  #during(
    about: string,
    kind: DisturbanceKind,
    forMs: number,
    { begin, end, text, shard }: { begin: () => unknown; end: () => unknown; text: string; shard?: number },
  ): void {
    const world = this.#world;
    this.#active.get(about)?.();
    world.trace(() => `FAULT: ${text}`);
    begin();
    const disturbance: Disturbance = world.timeline.begin(kind, world.scheduler.nowMs, shard);
    const finish = () => {
      if (this.#active.get(about) !== finish) return;
      this.#active.delete(about);
      world.trace(() => `no more: ${text}`);
      end();
      disturbance.toMs = world.scheduler.nowMs;
    };
    this.#active.set(about, finish);
    world.scheduler.after(forMs, finish);
  }
}

const onlyText = (only: number | undefined) =>
  only === undefined ? '' : ` for isolate ${String.fromCharCode(65 + only)} alone`;
const shardText = (shard: number | undefined) => (shard === undefined ? '' : ` in shard ${shard}`);
