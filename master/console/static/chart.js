// Curves as SVG: the results of a search and the best so far.

import { h } from "./dom.js";
import { clock, count, figure, plural, timeOfDay } from "./format.js";

const MARGIN = { left: 58, right: 16, top: 14, bottom: 28 };
const MINUTE = 60000;
const TIME_STEPS = [1000, 2000, 5000, 10000, 30000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE, 60 * MINUTE,
  120 * MINUTE, 360 * MINUTE, 720 * MINUTE, 1440 * MINUTE, 2880 * MINUTE, 7 * 1440 * MINUTE, 30 * 1440 * MINUTE];

// Points and steps come as arrays: [unix ms, number, fitness] and [unix ms, number, fitness, task id].
const AT = 0;
const NUMBER = 1;
const FITNESS = 2;

/** A line without axes, for a list: the best so far. */
export function sparkline(curve, label) {
  const points = (curve?.points || []).filter((point) => point[FITNESS] !== null);
  if (points.length < 2) return h("div", { class: "spark empty" }, curve && curve.count ? "one result so far" : "no result yet");
  const last = points.at(-1)[NUMBER];
  const x = scale([points[0][NUMBER], last], [0, 300]);
  const y = scale(domain(points, curve.steps), [62, 4]);
  const path = stepPath(curve.steps, (step) => x(step[NUMBER]), (step) => clamp(y(step[FITNESS]), 4, 62), 300);
  return h("svg", { class: "spark", viewBox: "0 0 300 66", preserveAspectRatio: "none", role: "img", "aria-label": label },
    points.map((point, index) => h("path", { key: `p${index}`, class: "dot", d: `M${x(point[NUMBER])} ${clamp(y(point[FITNESS]), 4, 62)}h0` })),
    h("path", { key: "area", class: "area", d: `${path}V66H${x(curve.steps[0][NUMBER])}Z` }),
    h("path", { key: "line", class: "line", d: path }));
}

/** Each result as a dot and the best so far as a line, over time or over the number of results. */
export function resultsChart(curve, { width, byTime, now, live, hover, onHover }) {
  const height = Math.round(clamp(width * 0.36, 220, 380));
  const points = curve.points.filter((point) => point[FITNESS] !== null);
  if (!points.length) return null;
  const field = byTime ? AT : NUMBER;
  const [first, last] = [points[0][field], points.at(-1)[field]];
  const end = byTime && live ? Math.max(now, last) : last;
  const x = scale([first, end], [MARGIN.left, width - MARGIN.right]);
  const range = domain(points, curve.steps);
  const y = scale(range, [height - MARGIN.bottom, MARGIN.top]);
  const below = points.filter((point) => point[FITNESS] < range[0]).length;
  const best = curve.steps.at(-1);
  const label = `${plural(curve.count, "result")}; the best so far is ${figure(best[FITNESS])}, the ${ordinal(best[NUMBER])}`;
  const inside = (value) => clamp(y(value), MARGIN.top, height - MARGIN.bottom);
  const path = stepPath(curve.steps, (step) => x(step[field]), (step) => inside(step[FITNESS]), x(end));
  const near = hover === null ? null : nearest(points, (point) => x(point[field]), hover);
  return h("figure", { class: "chart" },
    h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label,
      onpointermove: (event) => onHover(event.offsetX), onpointerleave: () => onHover(null) },
      axes(width, height, x, y, byTime ? timeTicks(first, end, width) : numberTicks(first, end, 6).map((tick) => [tick, count(tick)]),
        numberTicks(...range, 5)),
      h("g", { key: "dots", class: points.length < 150 ? "few" : "" }, points.map((point, index) =>
        h("path", { key: index, class: point[FITNESS] < range[0] ? "dot low" : "dot",
          d: `M${x(point[field]).toFixed(1)} ${inside(point[FITNESS]).toFixed(1)}h0` }))),
      h("path", { key: "area", class: "area", d: `${path}V${height - MARGIN.bottom}H${x(curve.steps[0][field])}Z` }),
      h("path", { key: "line", class: "line", d: path }),
      h("circle", { key: "best", class: "best", cx: x(best[field]), cy: inside(best[FITNESS]), r: 4.5 }),
      near && hoverMark(near, curve, x(near[field]), y, height, range)),
    h("figcaption", null,
      h("span", null, h("i", { class: "line" }), "best so far"), h("span", null, h("i", { class: "dot" }), "a result"),
      below > 0 && h("span", { class: "quiet" }, `${plural(below, "point")} below the scale, drawn at its foot`),
      curve.count > points.length && h("span", { class: "quiet" }, `${count(points.length)} of ${count(curve.count)} results drawn, every new best among the line`),
      near && h("output", { class: "reading" }, reading(near, curve))));
}

/** How many results there are over time. */
export function progressChart(curve, { width, now, live, total }) {
  const height = Math.round(clamp(width * 0.2, 140, 220));
  const points = curve.points;
  if (!points.length) return null;
  const start = points[0][AT];
  const end = live ? Math.max(now, points.at(-1)[AT]) : points.at(-1)[AT];
  const x = scale([start, end], [MARGIN.left, width - MARGIN.right]);
  const most = Math.max(total, curve.count);
  const y = scale([0, most], [height - MARGIN.bottom, MARGIN.top]);
  const line = points.map((point) => `${x(point[AT]).toFixed(1)} ${y(point[NUMBER]).toFixed(1)}`).join("L");
  const path = `M${line}L${x(points.at(-1)[AT]).toFixed(1)} ${y(curve.count).toFixed(1)}H${x(end).toFixed(1)}`;
  return h("figure", { class: "chart" },
    h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `${count(curve.count)} of ${plural(total, "task")} have succeeded` },
      axes(width, height, x, y, timeTicks(start, end, width), numberTicks(0, most, 4)),
      h("path", { key: "total", class: "total", d: `M${MARGIN.left} ${y(total)}H${width - MARGIN.right}` }),
      h("path", { key: "area", class: "area done", d: `${path}V${height - MARGIN.bottom}H${x(start)}Z` }),
      h("path", { key: "line", class: "line done", d: path })),
    h("figcaption", null, h("span", null, h("i", { class: "done" }), "succeeded"),
      h("span", null, h("i", { class: "total" }), `${plural(total, "task")} submitted so far`)));
}

function axes(width, height, x, y, xTicks, yTicks) {
  return h("g", { key: "axes", class: "axes" },
    yTicks.map((tick) => h("g", { key: `y${tick}` },
      h("path", { d: `M${MARGIN.left} ${y(tick)}H${width - MARGIN.right}` }),
      h("text", { x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, figure(Number(tick.toPrecision(6)))))),
    xTicks.map(([tick, text]) => h("text", { key: `x${tick}`, x: clamp(x(tick), MARGIN.left + 12, width - MARGIN.right - 20),
      y: height - 8, "text-anchor": "middle" }, text)));
}

function hoverMark(point, curve, left, y, height, range) {
  return h("g", { key: "hover", class: "hover" },
    h("path", { d: `M${left} ${MARGIN.top}V${height - MARGIN.bottom}` }),
    h("circle", { cx: left, cy: clamp(y(point[FITNESS]), y(range[1]), y(range[0])), r: 4 }));
}

function reading(point, curve) {
  const best = curve.steps.findLast((step) => step[NUMBER] <= point[NUMBER]);
  return `${clock(point[AT])} · result ${count(point[NUMBER])}: ${figure(point[FITNESS])}` +
    (best ? ` · best so far ${figure(best[FITNESS])}` : "");
}

/** From the lowest that matters: a few very bad results must not press the others together. */
function domain(points, steps) {
  const sorted = points.map((point) => point[FITNESS]).sort((a, b) => a - b);
  const low = sorted[Math.floor(sorted.length * 0.05)];
  const high = Math.max(sorted.at(-1), steps.at(-1)[FITNESS]);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - room, high + room];
}

function stepPath(steps, x, y, end) {
  let path = "";
  for (const step of steps) path += path ? `H${x(step).toFixed(1)}V${y(step).toFixed(1)}` : `M${x(step).toFixed(1)} ${y(step).toFixed(1)}`;
  return `${path}H${Number(end).toFixed(1)}`;
}

function scale([from, to], [left, right]) {
  const size = to - from || 1;
  return (value) => left + ((value - from) / size) * (right - left);
}

function numberTicks(from, to, most) {
  const rough = (to - from || 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to + step / 1e6; tick += step) ticks.push(tick);
  return ticks;
}

function timeTicks(from, to, width) {
  const most = Math.max(2, Math.floor(width / 110));
  const step = TIME_STEPS.find((size) => (to - from) / size <= most) || TIME_STEPS.at(-1);
  // Whole minutes and days where the reader is.
  const shift = new Date(from).getTimezoneOffset() * MINUTE;
  const ticks = [];
  for (let tick = Math.ceil((from - shift) / step) * step + shift; tick <= to; tick += step) {
    const text = step >= 1440 * MINUTE ? new Date(tick).toLocaleDateString(undefined, { month: "short", day: "numeric" })
      : timeOfDay(tick).slice(0, step < MINUTE ? 8 : 5);
    ticks.push([tick, text]);
  }
  return ticks;
}

function nearest(points, x, at) {
  return points.reduce((best, point) => (Math.abs(x(point) - at) < Math.abs(x(best) - at) ? point : best), points[0]);
}

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

function ordinal(number) {
  const end = number % 100 > 10 && number % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[number % 10] || "th";
  return `${count(number)}${end}`;
}
