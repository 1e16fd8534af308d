/** Something that is read from the API and shown: what it is, whether it is there yet, why not, and how it is kept fresh. */
import { untrack } from 'svelte';

import { ApiError, failure } from '../api/client';
import { live, type Changes } from './live.svelte';

export type Resource<T> = {
  readonly data: T | undefined;
  /** Why the last look failed; the data of the one before may still be there. */
  readonly error: ApiError | undefined;
  readonly loading: boolean;
  /** When `data` was read. */
  readonly at: number;
  reload(): Promise<void>;
};

type Options = {
  /** Whether a change that was told concerns this. */
  when?: (changes: Changes) => boolean;
  /** Besides, it is read again so often while the page is looked at, in milliseconds. */
  every?: number;
};

/** To be made in a component; `read` is run again when what it depends on changes. */
export function resource<T>(read: (signal: AbortSignal) => Promise<T>, options: Options = {}): Resource<T> {
  let data = $state.raw<T>();
  let error = $state.raw<ApiError>();
  let loading = $state(true);
  let at = $state(0);
  let running: AbortController | undefined;
  let again = false;

  async function run(): Promise<void> {
    if (running) {
      // One at a time: whoever asks meanwhile is served by the next.
      again = true;
      return;
    }
    const current = (running = new AbortController());
    loading = true;
    try {
      const result = await read(current.signal);
      if (running !== current) return;
      data = result;
      error = undefined;
      at = Date.now();
      live.reached();
    } catch (caught) {
      if (running !== current) return;
      error = failure(caught);
      if (error.silent) live.missed();
    } finally {
      if (running === current) {
        running = undefined;
        loading = false;
        if (again) {
          again = false;
          void run();
        }
      }
    }
  }

  $effect(() => {
    // What was under way is about something else.
    untrack(() => {
      running?.abort();
      running = undefined;
      again = false;
    });
    void run();
    const stop = live.on((changes) => {
      if (changes.all || options.when?.(changes)) void run();
    });
    const timer = options.every ? setInterval(() => document.visibilityState === 'visible' && void run(), options.every) : undefined;
    return () => {
      stop();
      clearInterval(timer);
      running?.abort();
      running = undefined;
    };
  });

  return {
    get data() { return data; },
    get error() { return error; },
    get loading() { return loading; },
    get at() { return at; },
    reload: run,
  };
}
