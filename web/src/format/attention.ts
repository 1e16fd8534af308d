/** What wants somebody, the worst first. */
import type { Account, Berth, Doctor, Request } from '../api/types';
import { amountsWords } from './requests';
import { bytes, percent } from './units';
import { sentence, type Tone } from './words';

export type Need = {
  key: string;
  word: string;
  tone: Tone;
  why: string;
  berth?: Berth;
  /** What could be done: an action of a berth, or the words of a link. */
  action?: string;
  href?: string;
};

/** Part of a disk from which on it is nearly full. */
export const NEARLY_FULL = 0.9;

/** Conditions that only tell. */
const TOLD = new Set(['Restarted', 'InodesFixed', 'PendingRestart', 'NodeUnreachable']);
const HOST = 'NodeUnreachable';

/** So much of its disk is in use; nothing where that is not known. */
export function fullness(berth: Berth): number | undefined {
  const disk = berth.usage?.disk;
  if (disk?.limit_bytes) return (disk.used_bytes ?? 0) / disk.limit_bytes;
  return berth.usage && berth.limits.disk_bytes > 0 ? Math.min(1, (berth.usage.disk_bytes ?? 0) / berth.limits.disk_bytes) : undefined;
}

export function needsAttention(berth: Berth): boolean {
  return berth.state === 'failed' || (fullness(berth) ?? 0) >= NEARLY_FULL || berth.conditions.some(({ kind }) => !TOLD.has(kind) && !berth.suspended);
}

export function attention(berths: readonly Berth[], doctor: Doctor | undefined, requests: readonly Request[] = [], accounts: readonly Account[] = []): Need[] {
  const needs: (Need & { rank: number })[] = [];
  for (const check of doctor?.checks ?? []) {
    if (check.level === 'ok') continue;
    needs.push({ key: `check ${check.name}`, rank: check.level === 'failed' ? 0 : 3, word: check.level === 'failed' ? 'Host' : 'Host, warning', tone: check.level === 'failed' ? 'bad' : 'warn', why: check.detail, action: 'Doctor', href: '/settings' });
  }
  for (const request of requests) {
    needs.push({ key: `request ${request.id}`, rank: 2.5, word: 'Request', tone: 'busy', why: `${request.user} asks for ${amountsWords(request.asked)}: ${request.reason}`, action: 'Decide', href: '/requests' });
  }
  for (const account of accounts) {
    needs.push({ key: `account ${account.user}`, rank: 2.2, word: `Account ${account.state}`, tone: 'warn', why: account.detail, berth: berths.find(({ user }) => user === account.user), action: 'Remove…' });
  }
  // What all of them have is one thing.
  const away = berths.filter((berth) => berth.conditions.some(({ kind }) => kind === HOST));
  if (away.length > 0) {
    const { message } = away[0]!.conditions.find(({ kind }) => kind === HOST)!;
    needs.push({ key: HOST, rank: 0, word: 'Node away', tone: 'bad', why: message, action: 'Doctor', href: '/settings' });
  }
  for (const berth of berths) {
    if (!needsAttention(berth)) continue;
    const condition = berth.conditions.find(({ kind }) => !TOLD.has(kind));
    const full = fullness(berth) ?? 0;
    if (berth.state === 'failed') {
      needs.push({ key: `failed ${berth.user}`, rank: 1, word: 'Failed', tone: 'bad', why: condition?.message ?? 'it could not be brought to what is wanted', berth, action: 'Start' });
    } else if (full >= NEARLY_FULL) {
      const disk = berth.usage!.disk;
      const [used, limit] = disk ? [disk.used_bytes ?? 0, disk.limit_bytes ?? 0] : [berth.usage!.disk_bytes ?? 0, berth.limits.disk_bytes];
      needs.push({ key: `full ${berth.user}`, rank: 2, word: 'Disk nearly full', tone: full >= 0.97 ? 'bad' : 'warn', why: `${bytes(used)} of ${bytes(limit)} (${percent(used, limit)})`, berth, action: 'Set quota' });
    } else if (condition) {
      needs.push({ key: `${condition.kind} ${berth.user}`, rank: 4, word: sentence(condition.kind), tone: 'warn', why: condition.message, berth });
    }
  }
  return needs.sort((a, b) => a.rank - b.rank || a.key.localeCompare(b.key));
}
