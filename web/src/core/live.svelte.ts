/**
 * What changes, as the server tells it by one stream. Those who show something say what it depends on and are called when that changed:
 * at most twice a second, however many events there are. While there is no stream they are called every few seconds.
 */
import type { Schemas } from '../api/client';

type Event = Schemas extends { Event: infer E } ? E : { id: number; kind: string; subject: string };
export type Changes = { all: boolean; kinds: Map<string, Set<string>> };
type Listener = (changes: Changes) => void;

/** Events are gathered so long, in milliseconds. */
const GATHER = 400;
/** Of one kind; beyond that all of them have changed. */
const MOST = 25;
const POLL = 5_000;

class Live {
  state: 'connecting' | 'live' | 'lost' = $state('connecting');
  /** When something was last heard, in milliseconds. */
  heard = $state(Date.now());

  #source: EventSource | undefined;
  #listeners = new Set<Listener>();
  #pending: Changes = { all: false, kinds: new Map() };
  #timer: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #opened = 0;

  /** Kept open from sign-in to sign-out. */
  open(): void {
    if (this.#source || this.#retry) return;
    if (this.state !== 'lost') this.state = 'connecting';
    const source = new EventSource('/api/v1/events');
    this.#source = source;
    source.onopen = () => this.#live();
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) {
        this.#source = undefined;
        this.#fallBack();
      } else {
        // It tries again by itself, with the id of what it saw last.
        this.state = 'lost';
      }
    };
    for (const kind of KINDS) source.addEventListener(kind, (message) => this.#take(kind, (message as MessageEvent<string>).data));
  }

  close(): void {
    this.#source?.close();
    clearTimeout(this.#retry);
    clearTimeout(this.#timer);
    this.#source = undefined;
    this.#retry = undefined;
    this.#timer = undefined;
    this.#opened = 0;
  }

  /** Calls `listener` with what has changed, until the function it returns is called. */
  on(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A request was answered. */
  reached(): void {
    this.heard = Date.now();
  }

  /** A request found nobody. */
  missed(): void {
    if (!this.#source || this.#source.readyState !== EventSource.OPEN) this.state = 'lost';
  }

  #live(): void {
    this.state = 'live';
    this.heard = Date.now();
    this.#opened += 1;
  }

  #take(kind: string, data: string): void {
    this.heard = Date.now();
    this.state = 'live';
    if (kind === 'ready') {
      // A new stream without an id to go on from: what came in between is not told.
      if (this.#opened > 1) this.#all();
      return;
    }
    if (kind === 'reset') return this.#all();
    let subject = '';
    try {
      subject = (JSON.parse(data) as Event).subject;
    } catch {
      return this.#all();
    }
    const group = kind.replace(/_(changed|removed)$/, '');
    const subjects = this.#pending.kinds.get(group) ?? new Set();
    if (subjects.size <= MOST) subjects.add(subject);
    this.#pending.kinds.set(group, subjects);
    this.#later();
  }

  #all(): void {
    this.#pending.all = true;
    this.#later();
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const changes = this.#pending;
      this.#pending = { all: false, kinds: new Map() };
      for (const listener of this.#listeners) listener(changes);
    }, GATHER);
  }

  /** The stream was refused, by the server or by what stands before it: it is tried again, and until then everybody looks for himself. */
  #fallBack(): void {
    this.state = 'lost';
    this.#all();
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.open();
    }, POLL);
  }
}

const KINDS = [
  'ready', 'reset', 'berth_changed', 'berth_removed', 'operation_changed', 'profile_changed', 'profile_removed', 'image_changed', 'request_changed',
  'rule_changed', 'account_changed',
];

export const live = new Live();

/** Whether something of `kind` has changed, and `subject` may be it. */
export function touches(changes: Changes, kind: string, subject?: string): boolean {
  if (changes.all) return true;
  const subjects = changes.kinds.get(kind);
  return subjects !== undefined && (subject === undefined || subjects.size > MOST || subjects.has(subject));
}

/** The subjects of `kind` that have changed; nothing: all of them may have. */
export function subjectsOf(changes: Changes, kind: string): string[] | undefined {
  if (changes.all) return undefined;
  const subjects = changes.kinds.get(kind);
  if (!subjects) return [];
  return subjects.size > MOST ? undefined : [...subjects];
}
