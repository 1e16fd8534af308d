/** What of the host is promised, and would be. */
import { fieldWords, limitWords } from './words';

export type Headroom = { resource: string; capacity: number; allowed?: number | null; promised: number; after: number };

/** `Memory: 12 GiB of 16 GiB promised with it (10 GiB now)`. */
export function headroomWords(room: Headroom): string {
  const figure = (value: number) => limitWords(room.resource, value);
  const allowed = room.allowed != null && room.allowed !== room.capacity ? `, ${figure(room.allowed)} allowed` : '';
  return `${fieldWords(room.resource)}: ${figure(room.after)} of the host’s ${figure(room.capacity)} promised with it, ${figure(room.promised)} now${allowed}.`;
}
