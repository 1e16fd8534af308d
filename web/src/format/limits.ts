/** From what stands in the fields of a form to what the API is asked for. */
import type { Limits } from '../api/types';
import { limitWords, LIMITS, type LimitKind, type LimitName } from './words';
import { cpus, parseBits, parseBytes, parseCount, parseCpus, typedBits, typedBytes, type Parsed } from './units';

/** What was typed, by limit. Empty means: as the profile says, or in a profile's own form: none. */
export type Typed = Record<LimitName, string>;

const PARSERS: Record<LimitKind, (text: string) => Parsed> = {
  cpus: parseCpus, bytes: parseBytes, bps: parseBytes, bits: parseBits, count: parseCount, iops: parseCount, weight: parseCount,
};

function kindOf(name: LimitName): (typeof LIMITS)[number] {
  return LIMITS.find((limit) => limit.name === name)!;
}

/** A figure as one would type it. */
export function typed(name: LimitName, value: number | null | undefined): string {
  const { kind, optional } = kindOf(name);
  if (value === null || value === undefined || (optional && value === 0)) return 'none';
  if (kind === 'cpus') return cpus(value);
  if (kind === 'bytes' || kind === 'bps') return typedBytes(value);
  if (kind === 'bits') return typedBits(value);
  return value.toString();
}

/** The fields for the limits of a berth: only what is its own. */
export function ownFields(limits: Limits, own: readonly string[]): Typed {
  return Object.fromEntries(LIMITS.map(({ name }) => [name, own.includes(name) ? typed(name, limits[name]) : ''])) as Typed;
}

/** The fields for the limits of a profile: all of them. */
export function allFields(limits: Limits): Typed {
  return Object.fromEntries(LIMITS.map(({ name }) => [name, typed(name, limits[name])])) as Typed;
}

/** What a field says: a figure, 0 for none; nothing when it is empty. */
export function readField(name: LimitName, text: string): Parsed | undefined {
  const { kind, optional } = kindOf(name);
  if (text.trim() === '') return undefined;
  if (/^\s*none\s*$/i.test(text)) return optional ? { value: 0 } : { error: 'this limit is always there' };
  return PARSERS[kind](text);
}

export function fieldErrors(fields: Typed): Partial<Record<LimitName, string>> {
  const errors: Partial<Record<LimitName, string>> = {};
  for (const { name } of LIMITS) {
    const read = readField(name, fields[name]);
    if (read && 'error' in read) errors[name] = read.error;
  }
  return errors;
}

/** The change of a berth from these fields to those; an emptied field goes back to the profile. */
export function change(before: Typed, after: Typed): Partial<Record<LimitName, number | null>> {
  const result: Partial<Record<LimitName, number | null>> = {};
  for (const { name } of LIMITS) {
    const [was, is] = [readField(name, before[name]), readField(name, after[name])];
    const value = (read: Parsed | undefined) => (read === undefined ? null : 'value' in read ? read.value : undefined);
    const next = value(is);
    if (next !== undefined && next !== value(was)) result[name] = next;
  }
  return result;
}

/** The limits of a new berth: what is filled in. */
export function filled(fields: Typed): Partial<Record<LimitName, number>> {
  const result: Partial<Record<LimitName, number>> = {};
  for (const { name } of LIMITS) {
    const read = readField(name, fields[name]);
    if (read && 'value' in read) result[name] = read.value;
  }
  return result;
}

export function noFields(): Typed {
  return Object.fromEntries(LIMITS.map(({ name }) => [name, ''])) as Typed;
}

/** The way back from a change of a berth whose own limits were `own`. */
export function undoing(changed: Partial<Record<LimitName, number | null>>, limits: Limits, own: readonly string[]): Partial<Record<LimitName, number | null>> {
  return Object.fromEntries(Object.keys(changed).map((name) => [name, own.includes(name) ? (limits[name as LimitName] ?? 0) : null]));
}

/** What a field would say if it were empty. */
export function otherwise(name: LimitName, limits: Limits): string {
  return limitWords(name, limits[name]);
}
