/** Short notices at the edge: what was done, and how to take it back. */
import { ApiError, failure } from '../api/client';

export type Toast = {
  id: number;
  kind: 'done' | 'warning' | 'error';
  text: string;
  hint?: string | undefined;
  action?: { label: string; run: () => void } | undefined;
};

let next = 1;

class Toasts {
  list = $state.raw<Toast[]>([]);

  show(toast: Omit<Toast, 'id'>, lasts = toast.kind === 'error' ? 0 : toast.action ? 12_000 : 6_000): number {
    const id = next++;
    this.list = [...this.list.slice(-3), { ...toast, id }];
    if (lasts > 0) setTimeout(() => this.dismiss(id), lasts);
    return id;
  }

  done(text: string, action?: Toast['action']): number {
    return this.show({ kind: 'done', text, action });
  }

  failed(error: unknown, what: string): void {
    const problem: ApiError = failure(error);
    this.show({ kind: 'error', text: `${what}: ${problem.message}`, hint: problem.hint });
  }

  dismiss(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();
