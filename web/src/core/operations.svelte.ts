/** What is under way, and what of it was begun here: its end is told. */
import { ApiError, call, client, failure } from '../api/client';
import type { Operation } from '../api/types';
import { visible } from '../format/text';
import { operationWords } from '../format/words';
import { live, touches } from './live.svelte';
import { toasts, type Toast } from './toasts.svelte';

/** How many of the last ones are shown. */
const SHOWN = 40;
/** While something that was begun here is under way and there is no stream. */
const IMPATIENT = 1_500;

type Awaited = { done: string | undefined; action: Toast['action']; then: ((operation: Operation) => void) | undefined };

class Operations {
  list = $state.raw<Operation[]>([]);
  error = $state.raw<ApiError>();
  drawer = $state(false);
  running = $derived(this.list.filter((one) => one.state === 'pending' || one.state === 'running'));

  #awaited = new Map<string, Awaited>();
  #off: (() => void) | undefined;
  #busy = false;
  #again = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  start(): () => void {
    this.#off = live.on((changes) => touches(changes, 'operation') && void this.reload());
    void this.reload();
    return () => {
      this.#off?.();
      clearTimeout(this.#timer);
    };
  }

  /** Tells the end of what was begun here; several of them as one by whoever began them. */
  follow(operation: Operation, told: Partial<Awaited> = {}): void {
    this.#awaited.set(operation.id, { done: told.done, action: told.action, then: told.then });
    this.list = [operation, ...this.list.filter((one) => one.id !== operation.id)].slice(0, SHOWN);
    void this.reload();
  }

  async reload(): Promise<void> {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    try {
      const { items } = await call(() => client.GET('/api/v1/operations', { params: { query: { limit: SHOWN } } }));
      this.list = items;
      this.error = undefined;
      for (const id of [...this.#awaited.keys()]) {
        const operation = items.find((one) => one.id === id) ?? (await this.#one(id));
        if (operation?.finished_at) this.#ended(operation);
      }
    } catch (caught) {
      this.error = failure(caught);
    } finally {
      this.#busy = false;
      clearTimeout(this.#timer);
      if (this.#again) {
        this.#again = false;
        void this.reload();
      } else if (this.#awaited.size > 0) {
        this.#timer = setTimeout(() => void this.reload(), live.state === 'live' ? 10_000 : IMPATIENT);
      }
    }
  }

  async #one(id: string): Promise<Operation | undefined> {
    try {
      return await call(() => client.GET('/api/v1/operations/{id}', { params: { path: { id } } }));
    } catch (caught) {
      if (failure(caught).status === 404) this.#awaited.delete(id);
      return undefined;
    }
  }

  #ended(operation: Operation): void {
    const awaited = this.#awaited.get(operation.id);
    this.#awaited.delete(operation.id);
    if (!awaited) return;
    const subject = visible(operation.subject, 64);
    if (operation.state === 'succeeded') {
      if (awaited.done !== '') toasts.done(awaited.done ?? `${operationWords(operation)} ${subject}.`, awaited.action);
    } else if (operation.state === 'failed') {
      toasts.show({ kind: 'error', text: `${operationWords(operation)} ${subject} failed: ${operation.problem?.detail ?? 'no reason was given'}`, hint: operation.problem?.hint ?? undefined });
    } else {
      toasts.show({ kind: 'warning', text: `${operationWords(operation)} ${subject} was cancelled: ${operation.problem?.detail ?? 'a later request took its place'}` });
    }
    awaited.then?.(operation);
  }
}

export const operations = new Operations();
