/** Records of the audit trail in words. */
import type { AuditCall } from '../api/types';
import { fieldWords, limitWords } from './words';

export const periods: readonly (readonly [string, string])[] = [['', 'Any time'], ['1h', 'Last hour'], ['24h', 'Last day'], ['7d', 'Last 7 days'], ['30d', 'Last 30 days']];

/** `7d`: milliseconds since the epoch. */
export function since(period: string, now: number): number | undefined {
  const match = /^(\d{1,4})([hd])$/.exec(period);
  return match ? now - Number(match[1]) * (match[2] === 'h' ? 3_600_000 : 86_400_000) : undefined;
}

export function callWords(call: Pick<AuditCall, 'outcome' | 'status'>): string {
  switch (call.outcome) {
    case 'answered': return call.status?.toString() ?? 'answered';
    case 'upgraded': return 'became a stream';
    case 'refused': return call.status ? `${call.status}, refused by Berth` : 'refused by Berth';
    case 'cut': return 'cut off';
    case 'unparsed': return 'not understood, passed on';
    case 'lost': return 'lost';
    default: return call.outcome;
  }
}

/** What was asked for, of what can be said in a line. */
export function detailWords(details: unknown): string {
  if (details === null || typeof details !== 'object') return '';
  const parts: string[] = [];
  for (const [name, value] of Object.entries(details as Record<string, unknown>)) {
    if (value === null || value === undefined || parts.length >= 8) continue;
    if (typeof value === 'object' && !Array.isArray(value) && (name === 'limits' || name === 'own' || name === 'change')) {
      const inner = detailWords(value);
      if (inner) parts.push(inner);
    } else if (typeof value === 'object') {
      parts.push(`${fieldWords(name).toLowerCase()} ${JSON.stringify(value)}`);
    } else {
      parts.push(`${fieldWords(name).toLowerCase()} ${typeof value === 'boolean' ? (value ? 'yes' : 'no') : limitWords(name, value)}`);
    }
  }
  return parts.join(', ');
}
