// Charts as SVG, in the colours of the style sheet. Every one has a name; its numbers stand in the table of rounds.
import { figure } from "./elements.js";

const SPACE = "http://www.w3.org/2000/svg";
const EDGE = { left: 48, right: 10, top: 10, bottom: 26 };

export function svg(name, attributes, ...children) {
  const node = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

function frame(width, height, xs, ys, label) {
  const pad = (ys[1] - ys[0]) * 0.05 || Math.abs(ys[0]) * 0.05 || 1;
  const [low, high] = [ys[0] === 0 ? 0 : ys[0] - pad, ys[1] + pad];
  const x = (at) => EDGE.left + ((at - xs[0]) / (xs[1] - xs[0] || 1)) * (width - EDGE.left - EDGE.right);
  const y = (at) => height - EDGE.bottom - ((at - low) / (high - low)) * (height - EDGE.top - EDGE.bottom);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const at of ticks(low, high, 4)) {
    root.append(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(at), y2: y(at) }));
    root.append(svg("text", { x: EDGE.left - 7, y: y(at) + 4, "text-anchor": "end" }, figure(at, 4)));
  }
  for (const at of ticks(xs[0], xs[1], Math.max(3, Math.min(6, width / 90))).filter(Number.isInteger))
    root.append(svg("text", { x: x(at), y: height - 7, "text-anchor": "middle" }, at));
  return { root, x, y };
}

const path = (points, x, y) => points.map(([at, value], index) => `${index ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");

function bounds(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

// series: [{name, kind: "pooled" or a class, points: [[round, value]]}]; band: [[round, low, high]]
export function lines(box, label, series, band = []) {
  const drawn = series.map((each) => ({ ...each, points: each.points.filter((point) => point[1] !== null) }));
  const all = drawn.flatMap((each) => each.points);
  if (!all.length) return box.replaceChildren("Nothing was measured yet.");
  const width = Math.max(300, box.clientWidth || 600);
  const rounds = bounds(all.map((point) => point[0]));
  const values = bounds([...all.map((point) => point[1]), ...band.flatMap((each) => [each[1], each[2]])]);
  const { root, x, y } = frame(width, Math.min(340, Math.max(190, width * 0.5)), rounds, values, label);
  if (band.length) {
    const edge = [...band.map(([at, , high]) => [at, high]), ...band.map(([at, low]) => [at, low]).reverse()];
    root.append(svg("path", { class: "band", d: `${path(edge, x, y)}Z` }));
  }
  for (const each of drawn) {
    const title = svg("title", {}, each.name);
    if (each.points.length === 1) {
      const [at, value] = each.points[0];
      root.append(svg("circle", { class: each.kind, cx: x(at), cy: y(value), r: 3 }, title));
    } else root.append(svg("path", { class: each.kind, d: path(each.points, x, y) }, title));
  }
  box.replaceChildren(root);
}

export function bars(box, label, points) {
  if (!points.length) return box.replaceChildren("Nothing was sent yet.");
  const width = Math.max(300, box.clientWidth || 600);
  const rounds = bounds(points.map((point) => point[0]));
  const across = [rounds[0] - 0.6, rounds[1] + 0.6];
  const { root, x, y } = frame(width, 150, across, [0, bounds(points.map((point) => point[1]))[1] || 1], label);
  const wide = Math.max(1, (x(1) - x(0)) * 0.7);
  for (const [at, value] of points)
    root.append(svg("rect", { class: "bar", x: x(at) - wide / 2, width: Math.min(wide, 60), y: y(value), height: y(0) - y(value) },
      svg("title", {}, `round ${at}: ${figure(value, 3)} MB`)));
  box.replaceChildren(root);
}
