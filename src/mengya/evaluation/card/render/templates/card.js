// The report card: language and theme, the details of a figure, and charts that zoom. Reads one JSON block,
// asks no host, and writes texts as text.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROOT = document.documentElement;
const SVG = "http://www.w3.org/2000/svg";

const words = (key) => DATA.words[key][ROOT.dataset.language];

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- language and theme

document.getElementById("language").addEventListener("click", () => {
  ROOT.dataset.language = ROOT.dataset.language === "zh" ? "en" : "zh";
  ROOT.lang = ROOT.dataset.language === "zh" ? "zh-CN" : "en";
  drawAll();
});

document.getElementById("theme").addEventListener("click", () => {
  const dark = ROOT.dataset.theme
    ? ROOT.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  ROOT.dataset.theme = dark ? "light" : "dark";
});

// ---- the details of a figure

const details = document.getElementById("details");
details.querySelector("button").addEventListener("click", () => details.close());
details.addEventListener("click", (event) => {
  if (event.target === details) details.close();
});

const shown = (value, unit) => (unit === "share" ? `${(100 * value).toFixed(2)}%` : value.toPrecision(5));
const range = (interval, unit) => interval && interval.map((bound) => shown(bound, unit)).join(" – ");

function factsOf(row, cell) {
  const origin = DATA.origins[cell.origin] || {};
  const { change } = cell;
  const facts = [
    ["value", `${shown(cell.value, row.unit)} ${row.unit === "share" ? "" : row.unit}`],
    ["interval", range(cell.interval, row.unit)],
    ["items_word", cell.items.toLocaleString("en")],
    ["note", cell.note],
  ];
  if (change) {
    facts.push(
      ["change", `${words(change.verdict)} ${change.mean > 0 ? "+" : ""}${shown(change.mean, row.unit)}`],
      ["change_interval", range(change.interval, row.unit)],
      [change.paired ? "p_paired" : "p_unpaired", change.p === null ? null : change.p.toPrecision(3)],
    );
  }
  facts.push(
    ["command", origin.command || words("no_origin")],
    ["seed", origin.seed],
    ["hardware", [origin.device, origin.hardware].filter(Boolean).join(": ")],
    ["dtype", origin.dtype],
    ["versions", Object.entries(origin.versions || {}).map((pair) => pair.join(" ")).join(", ")],
    ["commit", origin.commit || words("unknown")],
    ["contamination", origin.contamination],
    ["settings", origin.settings && JSON.stringify(origin.settings)],
  );
  return facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
}

for (const button of document.querySelectorAll(".cell")) {
  button.addEventListener("click", () => {
    const row = DATA.rows[button.dataset.row];
    const stage = DATA.stages[button.dataset.stage];
    details.querySelector("h2").textContent = `${row.title[ROOT.dataset.language]} · ${stage.name}`;
    details.querySelector("dl").replaceChildren(
      ...factsOf(row, row.cells[button.dataset.stage]).flatMap(([key, value]) => [
        element("dt", { textContent: words(key) }),
        element("dd", { textContent: value }),
      ]),
    );
    details.showModal();
  });
}

// ---- charts: one view for all of them

const view = { mode: "life", hidden: new Set(), range: null, log: false };
const MARGIN = { left: 52, right: 12, top: 20, bottom: 22 };
const SYMBOLS = { epoch: "┊", skipped: "✕", spike: "▲", resume: "↻", rewind: "↶" };
const charts = [...document.querySelectorAll(".chart")].map((node) => ({
  node,
  names: JSON.parse(node.dataset.series),
  pointers: new Map(),
}));

// The position of a step on the horizontal axis: of its own run, or after the runs before it.
function axes() {
  let start = 0;
  return DATA.stages.map(({ curves }, number) => {
    if (!curves) return null;
    const steps = Object.values(curves.series).flatMap((points) => points.map(([step]) => step));
    const last = steps.length ? Math.max(...steps) : 0;
    const offset = view.mode === "life" ? start : 0;
    if (!view.hidden.has(number)) start += last;
    return view.mode === "tokens" ? (step) => between(curves.tokens, step) : (step) => step + offset;
  });
}

function between(points, step) {
  if (!points.length) return step;
  let low = [0, 0];
  for (const high of points) {
    if (high[0] >= step) {
      const part = high[0] === low[0] ? 1 : (step - low[0]) / (high[0] - low[0]);
      return low[1] + part * (high[1] - low[1]);
    }
    low = high;
  }
  return low[1];
}

function curvesOf(chart) {
  const position = axes();
  return DATA.stages.flatMap(({ curves }, stage) => {
    if (!curves || view.hidden.has(stage)) return [];
    return chart.names
      .filter((name) => curves.series[name])
      .map((name) => ({
        stage,
        name,
        points: curves.series[name]
          .filter(([, value]) => !view.log || value > 0)
          .map(([step, value]) => ({ step, value, x: position[stage](step) })),
        marks: curves.marks.map((mark) => ({ ...mark, x: position[stage](mark.step) })),
      }))
      .filter(({ points }) => points.length);
  });
}

// Multiples of 1, 2 or 5 times a power of ten inside [low, high].
function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) found.push(tick);
  return found;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(size >= 100 ? 4 : 3));
}

// The first and the last position of all curves that are shown: the same in every chart.
function extent() {
  const xs = charts.flatMap((chart) => curvesOf(chart).flatMap(({ points }) => points.map(({ x }) => x)));
  return xs.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
}

function draw(chart) {
  const width = chart.node.clientWidth;
  const height = chart.node.clientHeight;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  chart.curves = curvesOf(chart);
  chart.scale = null;
  const all = chart.curves.flatMap(({ points }) => points);
  if (all.length && width > 0) {
    const [low, high] = view.range || extent();
    const inside = all.filter(({ x }) => x >= low && x <= high);
    const values = (inside.length ? inside : all).map(({ value }) => (view.log ? Math.log10(value) : value));
    const [bottom, top] = [Math.min(...values), Math.max(...values)];
    const room = 0.06 * (top - bottom || Math.abs(top) || 1);
    const across = width - MARGIN.left - MARGIN.right;
    const scale = {
      low,
      high: high > low ? high : low + 1,
      x: (x) => MARGIN.left + ((x - scale.low) / (scale.high - scale.low)) * across,
      y: (value) => {
        const part = ((view.log ? Math.log10(value) : value) - bottom + room) / (top - bottom + 2 * room);
        return height - MARGIN.bottom - part * (height - MARGIN.top - MARGIN.bottom);
      },
      back: (pixel) => scale.low + ((pixel - MARGIN.left) / across) * (scale.high - scale.low),
    };
    chart.scale = scale;
    drawAxes(svg, scale, [bottom - room, top + room], width, height);
    drawCurves(svg, chart, width, height);
  }
  chart.node.replaceChildren(svg);
}

function drawAxes(svg, scale, [bottom, top], width, height) {
  for (const tick of ticks(bottom, top, 4)) {
    const value = view.log ? 10 ** tick : tick;
    const y = scale.y(value);
    svg.append(
      shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
      shape("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, short(value)),
    );
  }
  for (const tick of ticks(scale.low, scale.high, Math.max(2, Math.floor(width / 110)))) {
    svg.append(shape("text", { x: scale.x(tick), y: height - 6, "text-anchor": "middle" }, short(tick)));
  }
}

function drawCurves(svg, chart, width, height) {
  const { scale } = chart;
  const clip = `clip-${charts.indexOf(chart)}`;
  const area = { x: MARGIN.left - 4, y: 0, width: width - MARGIN.left - MARGIN.right + 8, height };
  const clipPath = shape("clipPath", { id: clip });
  clipPath.append(shape("rect", area));
  const group = shape("g", { "clip-path": `url(#${clip})` });
  const marked = new Set();
  for (const { stage, name, points, marks } of chart.curves) {
    const heldOut = name.startsWith("validation/");
    const layer = shape("g", { class: `stage-${stage % 6}` });
    const place = ({ x, value }) => `${scale.x(x).toFixed(1)} ${scale.y(value).toFixed(1)}`;
    const path = points.map((point, i) => `${i ? "L" : "M"}${place(point)}`);
    layer.append(shape("path", { class: heldOut ? "curve held-out" : "curve", d: path.join("") }));
    if (heldOut || points.length < 3) {
      for (const { x, value } of points) {
        layer.append(shape("circle", { class: "dot", cx: scale.x(x), cy: scale.y(value), r: 2.5 }));
      }
    }
    for (const mark of marked.has(stage) ? [] : marks) {
      const x = scale.x(mark.x);
      const symbol = shape("text", { class: "mark-symbol", x, y: 13 }, SYMBOLS[mark.kind]);
      symbol.append(shape("title", {}, `${words(`mark_${mark.kind}`)} ${mark.step} ${mark.text}`));
      const line = { class: "mark-line", x1: x, x2: x, y1: 16, y2: height - MARGIN.bottom };
      layer.append(shape("line", line), symbol);
    }
    marked.add(stage);
    group.append(layer);
  }
  svg.append(clipPath, group);
}

function drawAll() {
  charts.forEach(draw);
}

function zoom(range) {
  const [least, most] = extent();
  if (range && most > least) {
    const [low, high] = [Math.max(least, range[0]), Math.min(most, range[1])];
    view.range = high - low > 0 && (low > least || high < most) ? [low, high] : null;
  } else {
    view.range = null;
  }
  drawAll();
}

function zoomBy(chart, factor, centre) {
  if (!chart.scale) return;
  const { low, high } = chart.scale;
  const middle = centre ?? (low + high) / 2;
  zoom([middle - (middle - low) * factor, middle + (high - middle) * factor]);
}

// ---- what lies under the pointer

function nearest(points, x) {
  return points.reduce((best, point) => (Math.abs(point.x - x) < Math.abs(best.x - x) ? point : best));
}

function showTip(chart, pixel) {
  clearTip(chart);
  if (!chart.scale) return;
  const x = chart.scale.back(pixel);
  const found = chart.curves
    .map((curve) => ({ ...curve, point: nearest(curve.points, x) }))
    .filter(({ points }) => x >= points[0].x - 1e-9 - (points.at(-1).x - points[0].x) * 0.05);
  const lines = found
    .filter(({ point }) => Math.abs(chart.scale.x(point.x) - pixel) < 40)
    .map(({ stage, name, point }) =>
      element(
        "div",
        { className: `stage-${stage % 6}` },
        element("b", { textContent: DATA.stages[stage].name.slice(0, 40) }),
        ` ${name}: ${+point.value.toPrecision(5)} (${words("steps")} ${point.step.toLocaleString("en")})`,
      ),
    );
  const seen = new Set();
  for (const { stage, marks } of chart.curves) {
    for (const mark of seen.has(stage) ? [] : marks) {
      if (Math.abs(chart.scale.x(mark.x) - pixel) < 6) {
        const textContent = `${SYMBOLS[mark.kind]} ${words(`mark_${mark.kind}`)}: ${mark.text}`;
        lines.push(element("div", { className: `stage-${stage % 6}`, textContent }));
      }
    }
    seen.add(stage);
  }
  const svg = chart.node.querySelector("svg");
  const bottom = chart.node.clientHeight - MARGIN.bottom;
  svg.append(shape("line", { class: "cross", x1: pixel, x2: pixel, y1: MARGIN.top, y2: bottom }));
  if (!lines.length) return;
  const tip = element("div", { className: "tip" }, ...lines);
  chart.node.append(tip);
  const room = chart.node.clientWidth - tip.offsetWidth;
  const side = pixel > chart.node.clientWidth / 2 ? -tip.offsetWidth - 12 : 12;
  tip.style.left = `${Math.max(0, Math.min(room, pixel + side))}px`;
  tip.style.top = "22px";
}

function clearTip(chart) {
  chart.node.querySelectorAll(".tip, .cross, .band").forEach((node) => node.remove());
}

function showBand(chart, from, to) {
  clearTip(chart);
  const size = { width: Math.abs(to - from), height: chart.node.clientHeight };
  const band = shape("rect", { class: "band", x: Math.min(from, to), y: 0, ...size });
  chart.node.querySelector("svg").append(band);
}

for (const chart of charts) {
  const { node, pointers } = chart;
  const pixel = (event) => event.clientX - node.getBoundingClientRect().left;
  node.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    node.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { from: pixel(event), to: pixel(event) });
    if (pointers.size === 2) {
      chart.pinched = [...pointers.values()].map(({ to }) => chart.scale?.back(to));
    }
  });
  node.addEventListener("pointermove", (event) => {
    const pointer = pointers.get(event.pointerId);
    if (!pointer) return showTip(chart, pixel(event));
    pointer.to = pixel(event);
    if (pointers.size === 1) {
      if (Math.abs(pointer.to - pointer.from) > 6) showBand(chart, pointer.from, pointer.to);
      return undefined;
    }
    return pinch(chart);
  });
  const released = (event) => {
    const pointer = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (!pointer || !chart.scale) return;
    if (chart.pinched) {
      if (!pointers.size) chart.pinched = null;
      return;
    }
    const { from, to } = pointer;
    if (event.type === "pointerup" && Math.abs(to - from) > 6) {
      zoom([chart.scale.back(Math.min(from, to)), chart.scale.back(Math.max(from, to))]);
    } else {
      showTip(chart, to);
    }
  };
  node.addEventListener("pointerup", released);
  node.addEventListener("pointercancel", released);
  node.addEventListener("pointerleave", () => clearTip(chart));
  node.addEventListener("dblclick", () => zoom(null));
  node.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      zoomBy(chart, event.deltaY > 0 ? 1.25 : 0.8, chart.scale?.back(pixel(event)));
    },
    { passive: false },
  );
  node.addEventListener("keydown", (event) => {
    const keys = { "+": 0.7, "=": 0.7, "-": 1.4 };
    if (event.key in keys) zoomBy(chart, keys[event.key]);
    else if (event.key === "Escape" || event.key === "0") zoom(null);
    else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && view.range) {
      const shift = (event.key === "ArrowLeft" ? -0.2 : 0.2) * (view.range[1] - view.range[0]);
      zoom([view.range[0] + shift, view.range[1] + shift]);
    } else return;
    event.preventDefault();
  });
}

// Two fingers: what was under each stays under it.
function pinch(chart) {
  const [first, second] = [...chart.pointers.values()].map(({ to }) => to);
  const width = chart.node.clientWidth - MARGIN.left - MARGIN.right;
  if (!chart.pinched || Math.abs(first - second) < 10) return;
  const perPixel = (chart.pinched[0] - chart.pinched[1]) / (first - second);
  const low = chart.pinched[0] - (first - MARGIN.left) * perPixel;
  if (perPixel > 0) zoom([low, low + width * perPixel]);
}

// ---- what is drawn, and how

for (const chip of document.querySelectorAll("#stages .chip")) {
  chip.addEventListener("click", () => {
    const stage = Number(chip.dataset.stage);
    if (!view.hidden.delete(stage)) view.hidden.add(stage);
    chip.setAttribute("aria-pressed", String(!view.hidden.has(stage)));
    zoom(null);
  });
}
const modes = document.querySelectorAll("#axis [data-mode]");
for (const button of modes) {
  button.addEventListener("click", () => {
    view.mode = button.dataset.mode;
    modes.forEach((each) => each.setAttribute("aria-checked", String(each === button)));
    zoom(null);
  });
}
document.getElementById("log")?.addEventListener("click", (event) => {
  view.log = !view.log;
  event.currentTarget.setAttribute("aria-pressed", String(view.log));
  drawAll();
});
document.getElementById("reset")?.addEventListener("click", () => zoom(null));
new ResizeObserver(drawAll).observe(document.querySelector("main"));
drawAll();
