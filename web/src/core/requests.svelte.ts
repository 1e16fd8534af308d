/** What waits for an administrator's word: counted beside the page's name, and among what needs attention. */
import { call, client } from '../api/client';
import type { Request } from '../api/types';
import { live, touches } from './live.svelte';

class Requests {
  open = $state.raw<Request[]>([]);

  start(): () => void {
    void this.#look();
    return live.on((changes) => touches(changes, 'request') && void this.#look());
  }

  async #look(): Promise<void> {
    try {
      const { items } = await call(() => client.GET('/api/v1/requests', { params: { query: { state: 'open', limit: 100 } } }));
      this.open = items;
    } catch {
      // The page of requests says what is wrong.
    }
  }
}

export const requests = new Requests();
