/** All berths that one may see, kept fresh for the pages that list them, and what those that are up use. */
import { ApiError, call, client, failure } from '../api/client';
import type { Berth, BerthUsage } from '../api/types';
import { live, subjectsOf, type Changes } from './live.svelte';

/** So many are read one by one; beyond that all of them at once. */
const FEW = 4;
/** At least between two looks at all of them, in milliseconds. */
const PAUSE = 2_000;
const PAGE = 500;

class Berths {
  list = $state.raw<Berth[]>([]);
  loaded = $state(false);
  error = $state.raw<ApiError>();
  /** By name. */
  byUser = $derived(new Map(this.list.map((berth) => [berth.user, berth])));

  #users = 0;
  #off: (() => void) | undefined;
  #running = false;
  #again = false;
  #last = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Keeps it fresh until the function it returns is called. */
  use(): () => void {
    this.#users += 1;
    if (this.#users === 1) {
      this.#off = live.on((changes) => void this.#changed(changes));
      void this.reload();
    }
    return () => {
      this.#users -= 1;
      if (this.#users === 0) this.#off?.();
    };
  }

  async reload(): Promise<void> {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    try {
      const all: Berth[] = [];
      let cursor: string | null | undefined;
      do {
        const page = await call(() => client.GET('/api/v1/berths', { params: { query: { limit: PAGE, ...(cursor ? { cursor } : {}) } } }));
        all.push(...page.items);
        cursor = page.next;
      } while (cursor);
      this.list = all;
      this.loaded = true;
      this.error = undefined;
      live.reached();
    } catch (caught) {
      this.error = failure(caught);
      if (this.error.silent) live.missed();
    } finally {
      this.#last = Date.now();
      this.#running = false;
      if (this.#again) {
        this.#again = false;
        this.#soon();
      }
    }
  }

  async #changed(changes: Changes): Promise<void> {
    const users = subjectsOf(changes, 'berth');
    if (users?.length === 0) return;
    if (!users || users.length > FEW || this.#running) {
      this.#soon();
      return;
    }
    await Promise.all(users.map((user) => this.refresh(user)));
  }

  #soon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.reload();
    }, Math.max(0, this.#last + PAUSE - Date.now()));
  }

  /** Reads one again. */
  async refresh(user: string): Promise<void> {
    try {
      const berth = await call(() => client.GET('/api/v1/berths/{user}', { params: { path: { user } } }));
      this.#put(user, berth);
    } catch (caught) {
      if (failure(caught).status === 404) this.#put(user, undefined);
    }
  }

  #put(user: string, berth: Berth | undefined): void {
    const at = this.list.findIndex((one) => one.user === user);
    const list = [...this.list];
    if (berth && at >= 0) list[at] = berth;
    else if (berth) list.push(berth);
    else if (at >= 0) list.splice(at, 1);
    this.list = list;
  }
}

export const berths = new Berths();

/** What a berth uses now: the node's figures, and rates between two looks. */
export type Use = {
  sample: BerthUsage;
  /** CPUs at work; nothing before the second look. */
  cpu: number | undefined;
  /** Bytes per second. */
  read: number | undefined;
  written: number | undefined;
  sent: number | undefined;
  received: number | undefined;
};

/** Rates from two samples; a counter that went back began anew. */
export function rates(before: BerthUsage | undefined, now: BerthUsage): Use {
  const seconds = before ? (now.at - before.at) / 1000 : 0;
  const rate = (of: (usage: BerthUsage['usage']) => number) => {
    if (!before || before.id !== now.id || seconds <= 0) return undefined;
    const difference = of(now.usage) - of(before.usage);
    return difference < 0 ? undefined : difference / seconds;
  };
  const cpu = rate((usage) => usage.cpu_usec ?? 0);
  return {
    sample: now,
    cpu: cpu === undefined ? undefined : cpu / 1e6,
    read: rate((usage) => usage.io?.read_bytes ?? 0),
    written: rate((usage) => usage.io?.write_bytes ?? 0),
    sent: rate((usage) => usage.network?.egress_bytes ?? 0),
    received: rate((usage) => usage.network?.ingress_bytes ?? 0),
  };
}

class Uses {
  byUser = $state.raw(new Map<string, Use>());
  /** When they were read. */
  at = $state(0);
  #users = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #every = 5_000;
  #generation = 0;

  /** Looks every so often while somebody wants to know; of one user only, if it is named. */
  use(every = 5_000, user?: string): () => void {
    this.#users += 1;
    this.#every = every;
    const generation = ++this.#generation;
    clearTimeout(this.#timer);
    void this.#look(generation, user);
    return () => {
      this.#users -= 1;
      if (this.#users === 0) {
        clearTimeout(this.#timer);
        this.#generation += 1;
      }
    };
  }

  async #look(generation: number, user: string | undefined): Promise<void> {
    if (document.visibilityState === 'visible') {
      try {
        const { items } = await call(() => client.GET('/api/v1/usage', { params: { query: user === undefined ? {} : { user } } }));
        if (generation !== this.#generation) return;
        const next = new Map<string, Use>();
        for (const sample of items) {
          const before = this.byUser.get(sample.user);
          // Within the same look of the node there is nothing to compare.
          next.set(sample.user, before && before.sample.at === sample.at ? before : rates(before?.sample, sample));
        }
        this.byUser = next;
        this.at = Date.now();
      } catch {
        // Figures are for comfort: what is wrong is said where the berth itself is read.
        if (generation !== this.#generation) return;
      }
    }
    this.#timer = setTimeout(() => void this.#look(generation, user), this.#every);
  }
}

export const uses = new Uses();
