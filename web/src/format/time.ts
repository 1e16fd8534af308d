/** Times: relative to now, with the exact one for whoever points at it. */

const STEPS = [
  [60, 'second', 1],
  [3600, 'minute', 60],
  [86_400, 'hour', 3600],
  [86_400 * 30, 'day', 86_400],
  [86_400 * 365, 'month', 86_400 * 30],
  [Infinity, 'year', 86_400 * 365],
] as const;

/** `just now`, `5 minutes ago`, `in 2 days`; `at` and `now` in milliseconds. */
export function relative(at: number, now: number): string {
  const seconds = Math.abs(now - at) / 1000;
  if (seconds < 5) return 'just now';
  const words = lasting(seconds * 1000);
  return at <= now ? `${words} ago` : `in ${words}`;
}

/** `5 minutes`: how long, in the largest unit that fits. */
export function lasting(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000;
  const [, unit, size] = STEPS.find(([limit]) => seconds < limit)!;
  const number = Math.floor(seconds / size);
  return `${number} ${unit}${number === 1 ? '' : 's'}`;
}

/** `2026-11-30 05:22:07`, in the reader's zone. */
export function exact(at: number): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return 'unknown';
  const two = (value: number) => value.toString().padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `12 ms`, `1.4 s`, `3 min`: of a call. */
export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${Math.round(milliseconds / 100) / 10} s`;
  return lasting(milliseconds).replace(/minutes?/, 'min').replace(/hours?/, 'h').replace(/days?/, 'd');
}

/** How long until the words of `relative` may change, in milliseconds. */
export function untilChange(at: number, now: number): number {
  const age = Math.abs(now - at);
  if (age < 60_000) return 1000;
  if (age < 3_600_000) return 15_000;
  return 300_000;
}
