/** Samples as lines of a chart. */

type Point = { at: number };

/** Between two samples that lie further apart there is a hole: the berth was down. */
export function line<P extends Point>(points: readonly P[], of: (point: P) => number | null, limit?: number): { at: number[]; values: (number | null)[]; limit?: number | undefined } {
  const at: number[] = [];
  const values: (number | null)[] = [];
  const gap = 3 * usual(points);
  for (const [index, point] of points.entries()) {
    const before = points[index - 1];
    if (before && point.at - before.at > gap) {
      at.push((before.at + 1) / 1000);
      values.push(null);
    }
    at.push(point.at / 1000);
    values.push(of(point));
  }
  return { at, values, limit };
}

/** The usual distance of two samples; a minute at least. */
function usual(points: readonly Point[]): number {
  const distances = points.slice(1).map((point, index) => point.at - points[index]!.at).sort((a, b) => a - b);
  return Math.max(60_000, distances[Math.floor(distances.length / 2)] ?? 60_000);
}
