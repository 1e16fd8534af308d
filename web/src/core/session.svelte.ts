/** Who is signed in, and what he may do. */
import { ApiError, failure, onUnauthenticated, send } from '../api/client';
import { live } from './live.svelte';

export type Me = {
  account: string;
  role: 'admin' | 'operator' | 'auditor' | 'user';
  via: string;
  host_user?: string | null;
  admin?: string | null;
  may: Record<string, 'all' | 'own'>;
};

class Session {
  /** Nobody yet, or nobody any more. */
  me = $state.raw<Me>();
  state: 'asking' | 'in' | 'out' | 'unreachable' = $state('asking');
  /** The session has ended while a page was open: the page stays, and asks for a sign-in over it. */
  expired = $state(false);
  error = $state.raw<ApiError>();
  #waiting: ((again: boolean) => void)[] = [];

  constructor() {
    onUnauthenticated(() => {
      if (this.state !== 'in') return Promise.resolve(false);
      this.expired = true;
      live.close();
      return new Promise((resolve) => this.#waiting.push(resolve));
    });
  }

  /** Asks the server who one is; a one-time link in the address is used first. */
  async start(): Promise<void> {
    const link = /^#link=([\w-]+)$/.exec(location.hash)?.[1];
    if (link) {
      // Out of the address bar and the history before anything else: it is a secret.
      history.replaceState(null, '', location.pathname);
      try {
        await this.#open({ link });
        return;
      } catch (error) {
        this.error = failure(error);
      }
    }
    await this.look();
  }

  async look(): Promise<void> {
    try {
      const response = await send('/api/v1/me');
      this.#enter((await response.json()) as Me);
    } catch (caught) {
      const error = failure(caught);
      if (error.status === 401) {
        this.state = 'out';
      } else {
        this.error = error;
        this.state = 'unreachable';
      }
    }
  }

  async signIn(name: string, password: string): Promise<void> {
    await this.#open({ name, password });
  }

  async #open(body: object): Promise<void> {
    await send('/api/v1/sessions', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    const response = await send('/api/v1/me');
    this.#enter((await response.json()) as Me);
  }

  #enter(me: Me): void {
    const other = this.me !== undefined && this.me.account !== me.account;
    this.me = me;
    this.state = 'in';
    this.error = undefined;
    this.expired = false;
    // What somebody else had begun is not sent in this one's name.
    for (const resolve of this.#waiting.splice(0)) resolve(!other);
    if (other) location.assign('/');
    live.open();
  }

  /** Whether somebody has signed in elsewhere, in another tab or by a link. */
  async retry(): Promise<void> {
    const response = await send('/api/v1/me');
    this.#enter((await response.json()) as Me);
  }

  async signOut(): Promise<void> {
    await send('/api/v1/sessions/current', { method: 'DELETE' }).catch((error: ApiError) => {
      if (error.status !== 401) throw error;
    });
    this.leave();
  }

  leave(): void {
    live.close();
    for (const resolve of this.#waiting.splice(0)) resolve(false);
    this.me = undefined;
    this.expired = false;
    this.state = 'out';
  }

  /** Whether an operation of the API may be asked for at all, or for the berth of `user`. */
  can(operation: string, user?: string): boolean {
    const reach = this.me?.may[operation];
    return reach === 'all' || (reach === 'own' && (user === undefined || user === this.me?.host_user));
  }

  /** Sees more than his own. */
  get staff(): boolean {
    return this.me !== undefined && this.me.role !== 'user';
  }
}

export const session = new Session();
