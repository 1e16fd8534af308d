/** Where one is: a path and a query, both in the address bar, so that every view is a link. */
import { tick } from 'svelte';

class Route {
  path = $state(location.pathname);
  query = $state.raw(new URLSearchParams(location.search));
  /** Segments of the path, decoded; what cannot be decoded stays as it is. */
  segments = $derived(this.path.split('/').filter(Boolean).map(decoded));
}

export const route = new Route();

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function arrive(): void {
  route.path = location.pathname;
  route.query = new URLSearchParams(location.search);
}

/** Goes to a page of ours; the focus goes to its heading, as it would with a new document. */
export async function go(href: string, { replace = false, keep = false } = {}): Promise<void> {
  const from = route.path;
  if (replace) history.replaceState(null, '', href);
  else history.pushState(null, '', href);
  arrive();
  if (keep || from === route.path) return;
  await tick();
  scrollTo(0, 0);
  (document.querySelector<HTMLElement>('main h1') ?? document.querySelector<HTMLElement>('main'))?.focus({ preventScroll: true });
}

/** Sets parts of the query; empty ones go. The view stays where it is. */
export function setQuery(change: Record<string, string | null>): void {
  const query = new URLSearchParams(route.query);
  for (const [key, value] of Object.entries(change)) {
    if (value) query.set(key, value);
    else query.delete(key);
  }
  const text = query.toString();
  if (text === route.query.toString()) return;
  history.replaceState(null, '', text ? `${route.path}?${text}` : route.path);
  arrive();
}

/** The path of a berth's page. */
export function berthPath(user: string, tab = ''): string {
  return `/berths/${encodeURIComponent(user)}${tab ? `/${tab}` : ''}`;
}

export function listen(): void {
  addEventListener('popstate', arrive);
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element).closest('a');
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin || link.pathname.startsWith('/api/')) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    void go(link.pathname + link.search);
  });
}
