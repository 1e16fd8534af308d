/** The one question that is open, if any. */
import type { Component } from 'svelte';

class Modals {
  /** One at most. A list, so that what closes keeps its properties until it is gone. */
  list = $state.raw<{ component: Component<any>; props: Record<string, unknown> }[]>([]);

  open<P extends { close: () => void }>(component: Component<P>, props: Omit<P, 'close'>): void {
    this.list = [{ component, props: { ...props, close: () => this.close() } }];
  }

  close(): void {
    this.list = [];
  }
}

export const modals = new Modals();
