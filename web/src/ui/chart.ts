/** uPlot, in a chunk of its own. */
import 'uplot/dist/uPlot.min.css';

import uPlot from 'uplot';

export type Series = { at: number[]; values: (number | null)[]; limit?: number | undefined };
export type Look = { show: (value: number) => string; height: number; binary: boolean };

/** Steps of an axis of bytes: 1, 2, 5, … of each unit, not of a thousand. */
const STEPS = [0, 1, 2, 3, 4].flatMap((unit) => [1, 2, 5, 10, 20, 50, 100, 200, 500].map((step) => step * 1024 ** unit));

/** A line under a limit; as wide as `root`. */
export function draw(root: HTMLElement, series: Series, { show, height, binary }: Look): { set(series: Series): void; close(): void } {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const font = `12px ${colour('--font')}`;
  const two = (value: number) => value.toString().padStart(2, '0');
  let limit = series.limit;
  const plot = new uPlot(
    {
      width: Math.max(160, root.clientWidth),
      height,
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      legend: { show: false },
      padding: [8, 20, 0, 0],
      scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max((most ?? 0) * 1.15, (limit ?? 0) * 0.02, 1e-9)] } },
      axes: [
        { stroke: colour('--soft'), font, grid: { show: false }, ticks: { show: false }, size: 24, space: 70, values: (_, splits) => splits.map((at) => { const date = new Date(at * 1000); return `${two(date.getHours())}:${two(date.getMinutes())}`; }) },
        { stroke: colour('--soft'), font, grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, size: 66, space: 34, ...(binary ? { incrs: STEPS } : {}), values: (_, splits) => splits.map(show) },
      ],
      series: [{}, { stroke: colour('--accent'), width: 1.5, fill: `color-mix(in srgb, ${colour('--accent')} 12%, transparent)`, points: { show: false }, spanGaps: false }],
      hooks: {
        draw: [
          (self) => {
            if (limit === undefined || limit > (self.scales.y!.max ?? 0)) return;
            const y = Math.round(self.valToPos(limit, 'y', true));
            const { ctx, bbox } = self;
            ctx.save();
            ctx.strokeStyle = colour('--bad-dot');
            ctx.setLineDash([4, 4]);
            ctx.beginPath();
            ctx.moveTo(bbox.left, y);
            ctx.lineTo(bbox.left + bbox.width, y);
            ctx.stroke();
            ctx.restore();
          },
        ],
      },
    },
    [series.at, series.values],
    root,
  );
  const observer = new ResizeObserver(() => plot.setSize({ width: Math.max(160, root.clientWidth), height }));
  observer.observe(root);
  return {
    set(next) {
      limit = next.limit;
      plot.setData([next.at, next.values]);
    },
    close() {
      observer.disconnect();
      plot.destroy();
    },
  };
}
