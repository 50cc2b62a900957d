// Line charts with bands and values under the pointer, and heat maps.

const color = (i) => `var(--c${i % 8})`;
const dash = (line) => (line.reference ? "2 3" : line.dashed || line.beyond ? "5 3" : null);
const ink = (line) => (line.reference ? "var(--faint)" : color(line.color));

// Whether heights are positive and span more than a factor of 20, as the figures ask of theirs.
function needsLogScale(lines) {
  const seen = lines.flatMap((line) => line.y).filter((v) => v !== null && isFinite(v));
  return seen.length > 0 && Math.min(...seen) > 0 && Math.max(...seen) > 20 * Math.min(...seen);
}

function scale(values, log, from, to) {
  const seen = values.filter((v) => v !== null && isFinite(v) && (!log || v > 0)).map((v) => (log ? Math.log10(v) : v));
  let low = Math.min(...seen), high = Math.max(...seen);
  if (!seen.length) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const at = (v) => from + ((log ? Math.log10(v) : v) - low) / (high - low) * (to - from);
  return { at, ticks: log ? logTicks(low, high) : ticks(low, high, seen.every(Number.isInteger)) };
}

function ticks(low, high, whole, most = 6) {
  const raw = Math.max((high - low) / most, whole ? 1 : 0), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

function logTicks(low, high) {
  const marks = high - low > 2.5 ? [1] : [1, 2, 5];
  const found = [];
  for (let k = Math.floor(low); k <= high; k++) for (const m of marks) found.push(m * 10 ** k);
  const kept = found.filter((v) => Math.log10(v) >= low - 1e-9 && Math.log10(v) <= high + 1e-9);
  if (kept.length < 2) return [10 ** low, 10 ** high];
  const every = Math.ceil(kept.length / 7);
  return kept.filter((_, i) => i % every === 0);
}

// Bands may be wider than what is of interest: they are shown as far as one more height of the lines.
function heights(chart) {
  const lines = chart.lines.flatMap((line) => line.y).filter((v) => v !== null && (!chart.log_y || v > 0));
  const [least, most] = [Math.min(...lines), Math.max(...lines)];
  const reach = most - least;
  const [floor, roof] = chart.log_y ? [least / 3, most * 3] : [least - reach, most + reach];
  const bands = chart.lines.filter((line) => !line.dashed).flatMap((line) => [...line.low, ...line.high]);
  return [...lines, ...bands.filter((v) => v !== null).map((v) => Math.min(roof, Math.max(floor, v)))];
}

function drawChart(place, chart) {
  watchWidth(place, () => drawInto(place, chart));
}

function drawInto(place, chart) {
  const width = Math.max(280, place.clientWidth), height = Math.min(420, Math.max(240, width * 0.55));
  const box = { left: 58, right: width - 12, top: 22, bottom: height - 40 };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: 0, "aria-label": chart.title || chart.y });
  const lines = chart.lines.filter((line) => line.y.some((v) => v !== null));
  const solid = lines.filter((line) => !line.dashed), first = solid.filter((line, i) => solid.findIndex((other) => ink(other) === ink(line)) === i);
  const legend = make("ul", { class: "legend" }, ...first.map((line) => make("li", {}, swatch(line), line.name.replace(/, [^,]*$/, ""))));
  place.replaceChildren(legend, svg);
  if (!lines.length) { svg.append(make("text", { x: 20, y: 40 }, "nothing to draw: tick a recipe above")); return; }
  const x = scale(lines.flatMap((line) => line.x), chart.log_x, box.left, box.right);
  const y = scale(heights({ ...chart, lines }), chart.log_y, box.bottom, box.top);
  axes(svg, box, x, y, chart);
  const clip = `clip${Math.random().toString(36).slice(2)}`;
  svg.insertAdjacentHTML("beforeend", `<clipPath id="${clip}"><rect x="${box.left - 6}" y="${box.top - 6}" width="${box.right - box.left + 12}" height="${box.bottom - box.top + 12}"/></clipPath>`);
  const inside = make("g", { "clip-path": `url(#${clip})` });
  for (const line of lines) if (line.low.length && !line.dashed) inside.append((line.dots ? barsPath : bandPath)(line, x, y, box, chart.log_y));
  for (const line of lines) inside.append(...linePath(line, x, y, chart.log_y));
  svg.append(inside);
  hover(svg, box, x, y, lines, chart);
}

function swatch(line) {
  return make("svg", { viewBox: "0 0 28 10" }, make("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke: ink(line),
    "stroke-width": line.dashed || line.beyond ? 2 : 3, "stroke-dasharray": dash(line) }));
}

function axes(svg, box, x, y, chart) {
  for (const v of y.ticks) {
    svg.append(make("line", { class: "axis", x1: box.left, x2: box.right, y1: y.at(v), y2: y.at(v) }),
      make("text", { x: box.left - 6, y: y.at(v) + 4, "text-anchor": "end" }, digits(v, 3)));
  }
  for (const v of x.ticks) svg.append(make("text", { x: x.at(v), y: box.bottom + 17, "text-anchor": "middle" }, digits(v, 3)));
  svg.append(make("text", { x: box.right, y: box.bottom + 34, "text-anchor": "end" }, chart.x),
    make("text", { x: 4, y: 12 }, chart.y));
}

const drawable = (v, log) => v !== null && v !== undefined && (!log || v > 0);

function linePath(line, x, y, log) {
  let d = "", pen = false, before = null;
  line.x.forEach((at, i) => {
    if (!drawable(line.y[i], log)) { pen = false; return; }
    if (pen && line.steps) d += `L${x.at(at)},${y.at(before)}`;
    d += `${pen ? "L" : "M"}${x.at(at).toFixed(1)},${y.at(line.y[i]).toFixed(1)}`;
    pen = true;
    before = line.y[i];
  });
  const path = make("path", { d, fill: "none", stroke: ink(line), "stroke-width": line.dashed || line.beyond ? 1.6 : 2.4,
    "stroke-dasharray": dash(line), "stroke-linejoin": "round" });
  const few = line.dots || (line.x.length < 12 && !line.steps && !line.reference);
  const dots = few ? line.x.map((at, i) => drawable(line.y[i], log)
    ? make("circle", { cx: x.at(at), cy: y.at(line.y[i]), r: 3, fill: color(line.color) }) : "") : [];
  return [...(line.dots ? [] : [path]), ...dots.filter(Boolean)];
}

function bandPath(line, x, y, box, log) {
  const kept = line.x.map((_, i) => i).filter((i) => drawable(line.high[i], log) && line.low[i] !== null);
  const bottom = (i) => (drawable(line.low[i], log) ? Math.min(box.bottom + 99, y.at(line.low[i])) : box.bottom + 99);
  const up = kept.map((i) => `${x.at(line.x[i]).toFixed(1)},${y.at(line.high[i]).toFixed(1)}`);
  const back = kept.map((i) => `${x.at(line.x[i]).toFixed(1)},${bottom(i).toFixed(1)}`).reverse();
  return make("path", { d: kept.length ? `M${[...up, ...back].join("L")}Z` : "", fill: color(line.color), opacity: 0.15 });
}

function barsPath(line, x, y, box, log) {
  const bar = (at, i) => (drawable(line.high[i], log) && line.low[i] !== null
    ? `M${x.at(at).toFixed(1)},${y.at(line.high[i]).toFixed(1)}V${drawable(line.low[i], log) ? y.at(line.low[i]).toFixed(1) : box.bottom + 99}` : "");
  return make("path", { d: line.x.map(bar).join(""), fill: "none", stroke: color(line.color), "stroke-width": 1.6 });
}

// The values of all lines at the place nearest to the pointer, or moved to by the arrow keys.
function hover(svg, box, x, y, lines, chart) {
  const places = [...new Set(lines.flatMap((line) => line.x))].filter((v) => !chart.log_x || v > 0).sort((a, b) => a - b);
  const cursor = make("g");
  svg.append(cursor);
  let now = -1;
  function show(i, left, top) {
    now = i;
    const at = places[i];
    cursor.replaceChildren(make("line", { class: "cursor", x1: x.at(at), x2: x.at(at), y1: box.top, y2: box.bottom }));
    const rows = [];
    for (const line of lines) {
      const k = line.steps || line.reference ? line.x.findLastIndex((v) => v <= at) : line.x.indexOf(at);
      if (k < 0 || line.y[k] === null) continue;
      if (drawable(line.y[k], chart.log_y)) cursor.append(make("circle", { cx: x.at(at), cy: y.at(line.y[k]), r: 4, fill: ink(line) }));
      const band = line.low.length ? interval([line.y[k], 0, line.low[k], line.high[k]]) : digits(line.y[k]);
      rows.push([line.y[k], make("tr", {}, make("td", {}, swatch(line)), make("td", { class: "name" }, line.name),
        make("td", {}, band), make("td", {}, line.n.length ? `n = ${line.n[k]}` : ""))]);
    }
    rows.sort((a, b) => b[0] - a[0]);
    tip(left, top, make("b", {}, `${chart.x} ${digits(at)}`), make("table", {}, ...rows.map((row) => row[1])));
  }
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const at = (event.clientX - frame.left) * svg.viewBox.baseVal.width / frame.width;
    const nearest = places.reduce((best, v, i) => Math.abs(x.at(v) - at) < Math.abs(x.at(places[best]) - at) ? i : best, 0);
    show(nearest, event.clientX, event.clientY);
  });
  const leave = () => { cursor.replaceChildren(); document.getElementById("tip").hidden = true; now = -1; };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const frame = svg.getBoundingClientRect();
    show(Math.max(0, Math.min(places.length - 1, now + move)), frame.left + 60, frame.top + 20);
  });
}

function tip(left, top, ...children) {
  const box = document.getElementById("tip");
  box.replaceChildren(...children);
  box.hidden = false;
  const { offsetWidth: w, offsetHeight: h } = box;
  box.style.left = `${Math.max(4, left + 16 + w > innerWidth ? left - w - 12 : left + 16)}px`;
  box.style.top = `${Math.max(4, Math.min(top + 12, innerHeight - h - 4))}px`;
}

function drawHeat(place, heat) {
  const seen = heat.value.flat().filter((v) => v !== null);
  const log = Math.min(...seen) > 0, to = (v) => (log ? Math.log(v) : v);
  const [low, high] = [Math.min(...seen), Math.max(...seen)];
  const share = (v) => (high > low ? (to(high) - to(v)) / (to(high) - to(low)) : 0.5);
  const cell = (v) => v === null ? make("td", {}, "–") : make("td", { class: v === low ? "lowest" : "",
    style: `background: color-mix(in srgb, var(--c0) ${Math.round(55 * share(v))}%, var(--paper))` }, digits(v, 3));
  const head = make("tr", {}, make("th", {}, `${heat.y} \\ ${heat.x}`), ...heat.xs.map((v) => make("th", {}, digits(v))));
  const rows = heat.ys.map((v, i) => make("tr", {}, make("th", {}, digits(v)), ...heat.value[i].map(cell)));
  place.append(make("div", { class: "heat", style: `--columns: ${heat.xs.length + 1}` }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.reverse()))));
}

// An interval on a common scale, with a line at zero.
function bar([mean, , low, high], reach, color) {
  if (mean === null || low === null) return "";
  const at = (v) => 60 + 58 * Math.max(-1, Math.min(1, v / reach));
  return make("svg", { width: 120, height: 18, viewBox: "0 0 120 18", "aria-hidden": true },
    make("line", { x1: 60, x2: 60, y1: 1, y2: 17, stroke: "var(--faint)" }),
    make("line", { x1: at(low), x2: at(high), y1: 9, y2: 9, stroke: color, "stroke-width": 3 }),
    make("circle", { cx: at(mean), cy: 9, r: 4, fill: color }));
}
