/** The one question that is open, if any. */
import type { Component } from 'svelte';

class Modals {
  current = $state.raw<{ component: Component<any>; props: Record<string, unknown> }>();

  open<P extends { close: () => void }>(component: Component<P>, props: Omit<P, 'close'>): void {
    this.current = { component, props: { ...props, close: () => this.close() } };
  }

  close(): void {
    this.current = undefined;
  }
}

export const modals = new Modals();
