/** Requests for more, in words. */
import { parseBytes, parseCount, parseCpus, typedBytes, type Parsed } from './units';
import { fieldWords, limitWords, type Tone } from './words';

export type Amount = { add: number } | { to: number };
export type Amounts = { cpu_millis?: Amount | null; memory_bytes?: Amount | null; pids?: Amount | null; disk_bytes?: Amount | null };
export type AmountName = keyof Amounts;

export const NAMES: AmountName[] = ['disk_bytes', 'memory_bytes', 'cpu_millis', 'pids'];

export const REQUEST_STATES: Record<string, { word: string; tone: Tone }> = {
  open: { word: 'Open', tone: 'warn' },
  denied: { word: 'Denied', tone: 'quiet' },
  cancelled: { word: 'Withdrawn', tone: 'quiet' },
  lapsed: { word: 'Lapsed', tone: 'quiet' },
  approved: { word: 'Approved', tone: 'busy' },
  active: { word: 'In force', tone: 'good' },
  ending: { word: 'Ending', tone: 'busy' },
  overdue: { word: 'Overdue', tone: 'bad' },
  ended: { word: 'Ended', tone: 'quiet' },
};

export function amountWords(name: AmountName, amount: Amount): string {
  return 'add' in amount ? `+${limitWords(name, amount.add)}` : `at least ${limitWords(name, amount.to)}`;
}

/** `disk +20 GiB, CPUs at least 4`. */
export function amountsWords(amounts: Amounts): string {
  return NAMES.filter((name) => amounts[name]).map((name) => `${fieldWords(name) === 'CPUs' ? 'CPUs' : fieldWords(name).toLowerCase()} ${amountWords(name, amounts[name]!)}`).join(', ');
}

const PARSERS: Record<AmountName, (text: string) => Parsed> = { disk_bytes: parseBytes, memory_bytes: parseBytes, cpu_millis: parseCpus, pids: parseCount };

/** `+20g` is so much more, `20g` at least so much; nothing of an empty field. */
export function readAmount(name: AmountName, text: string): { amount: Amount } | { error: string } | undefined {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const read = PARSERS[name](trimmed.replace(/^\+\s*/, ''));
  if ('error' in read) return read;
  if (read.value === 0) return { error: 'that is nothing' };
  return { amount: trimmed.startsWith('+') ? { add: read.value } : { to: read.value } };
}

export function typedAmount(name: AmountName, amount: Amount | null | undefined): string {
  if (!amount) return '';
  const value = 'add' in amount ? amount.add : amount.to;
  const text = name === 'cpu_millis' ? (value / 1000).toString() : name === 'pids' ? value.toString() : typedBytes(value);
  return `${'add' in amount ? '+' : ''}${text}`;
}

/** What is filled in, and what is wrong with the rest. */
export function readAmounts(fields: Record<AmountName, string>): { amounts: Amounts; errors: Partial<Record<AmountName, string>> } {
  const amounts: Amounts = {};
  const errors: Partial<Record<AmountName, string>> = {};
  for (const name of NAMES) {
    const read = readAmount(name, fields[name]);
    if (read && 'error' in read) errors[name] = read.error;
    else if (read) amounts[name] = read.amount;
  }
  return { amounts, errors };
}

/** What a field for a date and a time holds, in the reader's zone. */
export function localInput(at: number): string {
  const date = new Date(at - new Date(at).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 16);
}
