// The curve of a sale, from its opening to the sell-out, as inline SVG.

import { duration, number, svg } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 240;
const MARGIN = { top: 12, right: 12, bottom: 38, left: 76 };

/** Return cumulated values at the end of each bin: [milliseconds since the beginning, accepted, issued]. */
function cumulate({ bin_seconds: width, points }, beginMs) {
  let [accepted, issued] = [0, 0];
  const curve = [[0, 0, 0]];
  for (const point of points) {
    const at = Math.max(0, Date.parse(point.at) - beginMs);
    curve.push([at, accepted, issued]); // a bin without events has no point
    accepted += point.requested;
    issued += point.issued;
    curve.push([at + width * 1000, accepted, issued]);
  }
  return curve;
}

/** Return the drawing of a coupon's report, or null without events. */
export function drawCurve(report) {
  const { points } = report.series;
  if (points.length === 0) return null;
  const beginMs = Math.min(Date.parse(points[0].at), Date.parse(report.sell_out?.since ?? points[0].at));
  const curve = cumulate(report.series, beginMs);
  const longest = curve.at(-1)[0];
  const most = Math.max(report.quantity, ...curve.map(([, accepted, issued]) => Math.max(accepted, issued)));
  const x = (ms) => MARGIN.left + (ms / longest) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (count) => HEIGHT - MARGIN.bottom - (count / most) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const path = (column) => curve.map((point, index) => `${index ? "L" : "M"}${x(point[0]).toFixed(1)},${y(point[column]).toFixed(1)}`).join("");
  const text = (words, at, anchor, attributes = {}) => svg("text", { x: at[0], y: at[1], "text-anchor": anchor, ...attributes }, words);
  const drawing = svg("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": inWords(report, longest) },
    svg("path", { class: "axis", d: `M${MARGIN.left},${MARGIN.top}V${HEIGHT - MARGIN.bottom}H${WIDTH - MARGIN.right}` }),
    svg("line", { class: "quantity", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(report.quantity), y2: y(report.quantity) }),
    svg("path", { class: "issued-area", d: `${path(2)}L${x(longest)},${y(0)}L${x(0)},${y(0)}Z` }),
    svg("path", { class: "accepted", d: path(1) }),
    svg("path", { class: "issued", d: path(2) }),
    text(number(most), [MARGIN.left - 6, MARGIN.top + 5], "end"),
    text("0", [MARGIN.left - 6, HEIGHT - MARGIN.bottom], "end"),
    text(`${new Date(beginMs).toLocaleTimeString("en-GB")}`, [MARGIN.left, HEIGHT - 12], "start"),
    text(`+${duration(longest / 1000)}`, [WIDTH - MARGIN.right, HEIGHT - 12], "end"));
  if (report.sell_out !== null) {
    const at = x(Math.min(longest, Date.parse(report.sell_out.at) - beginMs));
    drawing.append(svg("line", { class: "sell-out", x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
  }
  return drawing;
}

function inWords(report, longestMs) {
  const sold = report.sell_out ? `sold out after ${duration(report.sell_out.seconds)}` : "not sold out";
  return `${number(report.accepted)} accepted and ${number(report.issued)} of ${number(report.quantity)} issued within ${duration(longestMs / 1000)}, ${sold}`;
}
