/** Figures as people write and read them: Docker's units, CPUs with decimals, rates, spans. The same as the program `berth` shows. */

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const DECIMAL = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

function scaled(value: number, base: number, units: string[], digits: number, space: string): string {
  let rest = Math.max(0, value);
  let unit = 0;
  // What would be rounded up to the next unit is shown in it.
  while (unit < units.length - 1 && Number(rest.toPrecision(digits)) >= base) {
    rest /= base;
    unit += 1;
  }
  const shown = unit === 0 ? Math.round(rest).toString() : Number(rest.toPrecision(digits)).toString();
  return `${shown}${space}${units[unit]}`;
}

/** Memory, quotas, disks: `1.5 GiB`. */
export function bytes(value: number): string {
  let rest = Math.max(0, value);
  let unit = 0;
  while (unit < BINARY.length - 1 && Math.round(rest * 10) / 10 >= 1024) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(rest) : Math.round(rest * 10) / 10} ${BINARY[unit]}`;
}

/** What Docker stores, as `docker images` and `docker system df` say it: `1.23GB`. */
export function dockerSize(value: number): string {
  return scaled(value, 1000, DECIMAL, 3, '');
}

/** Thousandths of a CPU: `1.5`. */
export function cpus(millis: number): string {
  return (millis / 1000).toString();
}

/** The same with its word: `1 CPU`, `1.5 CPUs`. */
export function cpuWords(millis: number): string {
  return millis === 1000 ? '1 CPU' : `${cpus(millis)} CPUs`;
}

/** CPU time per time, in CPUs: `0.42`. */
export function cpuUse(share: number): string {
  if (share < 0.005) return '0';
  return share < 10 ? (Math.round(share * 100) / 100).toString() : (Math.round(share * 10) / 10).toString();
}

/** Bits per second: `100 Mbit/s`. */
export function bits(value: number): string {
  return `${scaled(value, 1000, ['bit', 'kbit', 'Mbit', 'Gbit', 'Tbit'], 4, ' ')}/s`;
}

/** A whole number with its thousands apart, by thin spaces. */
export function count(value: number): string {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** `1 image`, `3 images`. */
export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Hundredths of a percent: `12.5 %`. */
export function hundredths(value: number): string {
  return `${Math.round(value / 10) / 10} %`;
}

/** A part of a whole, for bars: `0 %` only when nothing is there, `100 %` only when all is. */
export function percent(part: number, whole: number): string {
  if (whole <= 0) return '–';
  const exact = (part / whole) * 100;
  if (exact > 0 && exact < 1) return '<1 %';
  if (exact < 100 && exact > 99) return '99 %';
  return `${Math.round(exact)} %`;
}

/** Seconds as profiles have them: `15m`; nothing: `never`. */
export function span(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return 'never';
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['m', 60]] as const) {
    if (seconds >= length && seconds % length === 0) return `${seconds / length}${unit}`;
  }
  return `${seconds}s`;
}

/** What was typed, or why it is none. */
export type Parsed = { value: number } | { error: string };

/** `512m`, `4g`, `1.5 GiB`: bytes, 1024-based as Docker's flags. */
export function parseBytes(text: string): Parsed {
  const match = /^\s*(\d+(?:[.,]\d*)?)\s*([kmgtp]?)i?b?\s*$/i.exec(text);
  if (!match) return { error: 'write a size, for instance 512m, 4g or 1.5t' };
  const power = 'kmgtp'.indexOf((match[2] ?? '').toLowerCase()) + (match[2] ? 1 : 0);
  const value = Math.floor(Number(match[1]!.replace(',', '.')) * 1024 ** power);
  return Number.isSafeInteger(value) ? { value } : { error: 'that is more than there can be' };
}

/** `1.5`: thousandths of a CPU. */
export function parseCpus(text: string): Parsed {
  const match = /^\s*(\d{0,6})(?:[.,](\d{1,3}))?\s*$/.exec(text);
  if (!match || (!match[1] && !match[2])) return { error: 'write a number of CPUs, for instance 2 or 1.5' };
  return { value: Number(match[1] || 0) * 1000 + Number((match[2] ?? '').padEnd(3, '0')) };
}

/** A whole number, thousands apart or not. */
export function parseCount(text: string): Parsed {
  const plain = text.replace(/[\s\u202f',]/g, '');
  return /^\d{1,15}$/.test(plain) ? { value: Number(plain) } : { error: 'write a whole number' };
}

/** `100mbit`: bits per second. */
export function parseBits(text: string): Parsed {
  const match = /^\s*(\d+(?:[.,]\d*)?)\s*([kmgt]?)(?:bit)?(?:\/s|ps)?\s*$/i.exec(text);
  if (!match) return { error: 'write a rate, for instance 500kbit, 100mbit or 1.5gbit' };
  const power = 'kmgt'.indexOf((match[2] ?? '').toLowerCase()) + (match[2] ? 1 : 0);
  return { value: Math.floor(Number(match[1]!.replace(',', '.')) * 1000 ** power) };
}

/** `90s`, `15m`, `12h`, `7d`: seconds. */
export function parseSpan(text: string): Parsed {
  const match = /^\s*(\d{1,9})\s*([smhd]?)\s*$/i.exec(text);
  if (!match) return { error: 'write a time, for instance 90s, 15m, 12h or 7d' };
  return { value: Number(match[1]) * { '': 1, s: 1, m: 60, h: 3600, d: 86400 }[(match[2] ?? '').toLowerCase() as 's']! };
}

/** A size as one would type it: `4g`, `1536m`; what the parsers take back as the same figure. */
export function typedBytes(value: number): string {
  for (const [unit, size] of [['t', 1024 ** 4], ['g', 1024 ** 3], ['m', 1024 ** 2], ['k', 1024]] as const) {
    if (value < size) continue;
    const whole = value / size;
    if (Number.isInteger(whole)) return `${whole}${unit}`;
    const short = (Math.round(whole * 100) / 100).toString();
    if (Math.floor(Number(short) * size) === value) return `${short}${unit}`;
  }
  return value.toString();
}

/** A rate as one would type it. */
export function typedBits(value: number): string {
  for (const [unit, size] of [['gbit', 1e9], ['mbit', 1e6], ['kbit', 1e3]] as const) {
    if (value >= size && Number.isInteger((value / size) * 100)) return `${value / size}${unit}`;
  }
  return value.toString();
}
