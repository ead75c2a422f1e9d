/**
 * Line charts as SVG: axes that are linear or logarithmic, a legend, nothing else.
 *
 * Colours are of Okabe and Ito's palette, which the colour-blind can tell apart, and each line has a mark of its own.
 *
 * @module
 */

import { assert } from "../../core/assert.ts";

/** A line. */
export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** What it would be, rather than what it is: dashed, without marks. */
  readonly reference?: boolean;
  /** Marks without a line. */
  readonly alone?: boolean;
}

/** An axis. */
export interface Axis {
  readonly title: string;
  readonly log?: boolean;
  /** Where it begins and ends; what holds all points unless given. */
  readonly from?: number;
  readonly to?: number;
  readonly ticks?: readonly number[];
  /** How a number is written on it. */
  readonly show?: (value: number) => string;
}

/** A chart. */
export interface Chart {
  readonly title: string;
  readonly note?: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
}

const WIDTH = 720, HEIGHT = 420;
const LEFT = 84, RIGHT = 36, TOP = 62, BOTTOM = 64;
const LEGEND_LINE = 20;
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const INK = "#24292f", PALE = "#6e7781", GRID = "#e4e7eb";

/** Draws a chart. */
export function draw(chart: Chart): string {
  const legendHeight = Math.ceil(chart.series.length / 2) * LEGEND_LINE;
  const height = HEIGHT + legendHeight;
  const area = { left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM };
  const all = chart.series.flatMap(({ points }) => points);
  const x = scale(chart.x, all.map(([x]) => x), area.left, area.right);
  const y = scale(chart.y, all.map(([, y]) => y), area.bottom, area.top);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, 'DejaVu Sans', sans-serif" font-size="13" ` +
    `role="img" aria-label="${escape(chart.title)}">`,
    `<rect width="100%" height="100%" rx="8" fill="#ffffff"/>`,
    text(LEFT, 28, chart.title, { size: 16, weight: 600 }),
  ];
  if (chart.note !== undefined) parts.push(text(LEFT, 48, chart.note, { fill: PALE, size: 12 }));
  for (const value of y.ticks) {
    const at = y.at(value);
    parts.push(
      `<line x1="${area.left}" x2="${area.right}" y1="${n(at)}" y2="${n(at)}" stroke="${GRID}"/>`,
      text(area.left - 10, at + 4.5, y.show(value), { anchor: "end", fill: PALE }),
    );
  }
  for (const value of x.ticks) {
    const at = x.at(value);
    parts.push(
      `<line x1="${n(at)}" x2="${n(at)}" y1="${area.bottom}" y2="${area.bottom + 5}" stroke="${PALE}"/>`,
      text(at, area.bottom + 20, x.show(value), { anchor: "middle", fill: PALE }),
    );
  }
  parts.push(
    `<line x1="${area.left}" x2="${area.right}" y1="${area.bottom}" y2="${area.bottom}" stroke="${PALE}"/>`,
    text((area.left + area.right) / 2, area.bottom + 44, chart.x.title, { anchor: "middle" }),
    `<g transform="rotate(-90)">${
      text(-(area.top + area.bottom) / 2, 22, chart.y.title, { anchor: "middle" })
    }</g>`,
  );
  // Later ones lie above; the first is what the chart is about.
  const styled = chart.series.map((series, i) => ({
    series,
    colour: series.reference ? PALE : COLOURS[i % 6]!,
    i,
  }));
  for (const { series, colour, i } of styled.toReversed()) {
    const places = series.points.map(([px, py]) => [x.at(px), y.at(py)] as const);
    if (!series.alone) {
      parts.push(
        `<polyline points="${places.map(([px, py]) => `${n(px)},${n(py)}`).join(" ")}" fill="none" ` +
          `stroke="${colour}" stroke-width="${series.reference ? 1.5 : 2.5}" stroke-linejoin="round"` +
          `${series.reference ? ` stroke-dasharray="5 5"` : ""}/>`,
      );
    }
    if (!series.reference) { for (const [px, py] of places) parts.push(mark(i, px, py, colour)); }
  }
  styled.forEach(({ series, colour, i }) => {
    const left = LEFT + i % 2 * (WIDTH - LEFT - RIGHT) / 2;
    const top = HEIGHT + Math.floor(i / 2) * LEGEND_LINE;
    if (!series.alone) {
      parts.push(
        `<line x1="${left}" x2="${left + 26}" y1="${top - 4}" y2="${top - 4}" stroke="${colour}" ` +
          `stroke-width="${series.reference ? 1.5 : 2.5}"${
            series.reference ? ` stroke-dasharray="5 5"` : ""
          }/>`,
      );
    }
    if (!series.reference) parts.push(mark(i, left + 13, top - 4, colour));
    parts.push(text(left + 34, top, series.name, {}));
  });
  parts.push("</svg>");
  return parts.join("\n") + "\n";
}

interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
  readonly show: (value: number) => string;
}

function scale(axis: Axis, values: readonly number[], start: number, end: number): Scale {
  const show = axis.show ?? short;
  if (axis.log) {
    assert(
      values.every((value) => value > 0),
      `a logarithmic axis (${axis.title}) has no place for ${values}`,
    );
    const from = axis.from ?? 10 ** Math.floor(Math.log10(Math.min(...values)) + 1e-9);
    const to = axis.to ?? 10 ** Math.ceil(Math.log10(Math.max(...values)) - 1e-9);
    const ticks = axis.ticks ?? powers(from, to);
    const span = Math.log(to / from);
    return { at: (value) => start + Math.log(value / from) / span * (end - start), ticks, show };
  }
  const from = axis.from ?? 0;
  const highest = Math.max(...values);
  const step = stepOf((axis.to ?? highest) - from);
  const to = axis.to ?? Math.ceil(highest / step) * step;
  const ticks = axis.ticks ??
    Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
  return { at: (value) => start + (value - from) / (to - from) * (end - start), ticks, show };
}

function powers(from: number, to: number): number[] {
  const ticks: number[] = [];
  for (let power = Math.ceil(Math.log10(from) - 1e-9); power <= Math.log10(to) + 1e-9; power++) {
    ticks.push(10 ** power);
  }
  return ticks;
}

/** A step of 1, 2 or 5 times a power of ten, some five of which make `span`. */
function stepOf(span: number): number {
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
}

/** A number in as few characters as do: 1.5k, 2M. */
export function short(value: number): string {
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (Math.abs(value) >= unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  }
  return String(Number(value.toPrecision(3)));
}

function mark(i: number, x: number, y: number, colour: string): string {
  const common = `fill="${colour}" stroke="#ffffff" stroke-width="1.2"`;
  switch (i % 4) {
    case 0:
      return `<circle cx="${n(x)}" cy="${n(y)}" r="5" ${common}/>`;
    case 1:
      return `<rect x="${n(x - 4.5)}" y="${n(y - 4.5)}" width="9" height="9" ${common}/>`;
    case 2:
      return `<path d="M${n(x)},${n(y - 6)} l5.8,10 h-11.6 z" ${common}/>`;
    default:
      return `<path d="M${n(x)},${n(y - 6)} l6,6 l-6,6 l-6,-6 z" ${common}/>`;
  }
}

interface TextStyle {
  readonly anchor?: "start" | "middle" | "end";
  readonly fill?: string;
  readonly size?: number;
  readonly weight?: number;
}

function text(
  x: number,
  y: number,
  content: string,
  { anchor, fill = INK, size, weight }: TextStyle,
): string {
  return `<text x="${n(x)}" y="${n(y)}" fill="${fill}"${
    anchor === undefined ? "" : ` text-anchor="${anchor}"`
  }` +
    `${size === undefined ? "" : ` font-size="${size}"`}${
      weight === undefined ? "" : ` font-weight="${weight}"`
    }>` +
    `${escape(content)}</text>`;
}

function n(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escape(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
