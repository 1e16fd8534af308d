/** The table of berths: columns, filters, order; functions from data to data. */
import type { Berth } from '../api/types';
import { needsAttention } from './attention';
import { matches } from './text';
import { STATE_ORDER } from './words';

export type Column = { id: string; label: string; width: string; numeric?: boolean };

export const COLUMNS: Column[] = [
  { id: 'user', label: 'User', width: 'minmax(9rem, 2fr)' },
  { id: 'state', label: 'State', width: 'minmax(7rem, 1fr)' },
  { id: 'cpu', label: 'CPU', width: 'minmax(6rem, 0.7fr)', numeric: true },
  { id: 'memory', label: 'Memory', width: 'minmax(10.5rem, 1.1fr)', numeric: true },
  { id: 'disk', label: 'Disk', width: 'minmax(11rem, 1.1fr)', numeric: true },
  { id: 'pids', label: 'Processes', width: 'minmax(6rem, 0.8fr)', numeric: true },
  { id: 'containers', label: 'Containers', width: 'minmax(6rem, 0.8fr)', numeric: true },
  { id: 'profile', label: 'Profile', width: 'minmax(6rem, 1fr)' },
  { id: 'image', label: 'Image', width: 'minmax(6rem, 1fr)' },
  { id: 'address', label: 'Address', width: 'minmax(7rem, 1fr)' },
  { id: 'used', label: 'Last used', width: 'minmax(8.5rem, 0.9fr)' },
];

export type Figures = { cpu?: number | undefined; memory?: number | undefined };
export type Sort = { by: string; down: boolean };
export type Filter = { text: string; state: string; profile: string };

export function readSort(text: string | null): Sort {
  const by = (text ?? '').replace(/^-/, '');
  return COLUMNS.some((column) => column.id === by) ? { by, down: text!.startsWith('-') } : { by: 'user', down: false };
}

export function writeSort(sort: Sort): string {
  return sort.by === 'user' && !sort.down ? '' : `${sort.down ? '-' : ''}${sort.by}`;
}

export function diskUsed(berth: Berth): number {
  return berth.usage?.disk?.used_bytes ?? berth.usage?.disk_bytes ?? 0;
}

export function memoryUsed(berth: Berth, figures?: Figures): number {
  return figures?.memory ?? berth.usage?.memory_bytes ?? 0;
}

export function filtered(berths: readonly Berth[], filter: Filter): Berth[] {
  return berths.filter(
    (berth) =>
      (filter.state === '' || (filter.state === 'attention' ? needsAttention(berth) : berth.state === filter.state)) &&
      (filter.profile === '' || berth.profile === filter.profile) &&
      (filter.text === '' || matches(`${berth.user} ${berth.profile} ${berth.image.name} ${berth.address ?? ''} ${berth.uid}`, filter.text)),
  );
}

export function sorted(berths: readonly Berth[], sort: Sort, figures: ReadonlyMap<string, Figures>): Berth[] {
  const key = (berth: Berth): number | string => {
    switch (sort.by) {
      case 'state': return STATE_ORDER.indexOf(berth.state);
      case 'cpu': return figures.get(berth.user)?.cpu ?? -1;
      case 'memory': return memoryUsed(berth, figures.get(berth.user));
      case 'disk': return diskUsed(berth);
      case 'pids': return berth.usage?.pids ?? 0;
      case 'containers': return berth.running_containers ?? -1;
      case 'profile': return berth.profile;
      case 'image': return berth.image.name;
      case 'address': return berth.address?.split('.').map((part) => part.padStart(3, '0')).join('.') ?? '';
      case 'used': return berth.last_used_at ?? 0;
      default: return berth.user;
    }
  };
  const keyed = berths.map((berth) => [key(berth), berth] as const);
  const direction = sort.down ? -1 : 1;
  // Plain comparison: names are bytes of accounts, not words of a language.
  keyed.sort(([a, one], [b, other]) => (a < b ? -direction : a > b ? direction : one.user < other.user ? -1 : 1));
  return keyed.map(([, berth]) => berth);
}

/** The rows that are in view, and some around. */
export function window(scroll: number, height: number, row: number, count: number, around = 6): { first: number; last: number } {
  const first = Math.max(0, Math.floor(scroll / row) - around);
  return { first, last: Math.min(count, Math.ceil((scroll + height) / row) + around) };
}
