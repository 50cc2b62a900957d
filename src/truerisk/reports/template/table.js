// Elements, and tables that can be sorted, filtered and opened, and that fit wherever they stand.

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "g", "rect"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// Labels may break after the signs that join their parts, rather than anywhere.
const breakable = (text) => make("span", {}, ...text.split(/(?<=[_+,=/])/).flatMap((part) => [part, make("wbr")]));

// columns: {title, sort(row), cell(row), name?, bar?, line? (begins one, where values are folded)}; what opens(row) returns is shown below a row; foot: cells of a last one.
function sortable(place, columns, rows, { opens = null, chosen = null, filter = null, text = null, foot = null } = {}) {
  let by = null, down = false;
  const open = new Set();
  const body = make("tbody");
  const heads = columns.map((column, i) => make("th", { scope: "col", class: column.name ? "name" : "" },
    column.sort ? make("button", { type: "button", onclick: () => sort(i) }, column.title) : column.title));
  const classOf = (column) => ["name", "bar", "line"].filter((kind) => column[kind]).join(" ");
  const cellOf = (column, content) => make("td", { class: classOf(column), "data-label": column.title }, content);
  place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body,
    ...(foot ? [make("tfoot", {}, make("tr", {}, ...foot.map((cell, i) => cellOf(columns[i], cell))))] : [])));

  function sort(i) {
    down = by === i ? !down : false;
    by = i;
    heads.forEach((head, k) => k === i
      ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    show();
  }
  function order(a, b) {
    const [x, y] = [columns[by].sort(a), columns[by].sort(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is not there comes last
    const sign = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return down ? -sign : sign;
  }
  function show() {
    const words = (filter?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter((row) => words.every((word) => text(row).toLowerCase().includes(word)));
    if (by !== null) kept.sort(order);
    body.replaceChildren(...kept.flatMap(drawn));
    if (!kept.length) body.append(make("tr", {}, make("td", { colspan: columns.length, class: "name" }, "nothing matches")));
    watchWidth(place, () => fit(place));
  }
  function drawn(row) {
    const cells = columns.map((column) => cellOf(column, column.cell(row)));
    const classes = [opens ? "opens" : "", chosen?.(row) ? "chosen" : ""].join(" ").trim();
    const line = make("tr", { class: classes, onclick: (event) => toggle(event, row) }, ...cells);
    return open.has(row) ? [line, make("tr", { class: "inner" }, make("td", { colspan: columns.length }, make("div", { class: "within" }, opens(row))))] : [line];
  }
  function toggle(event, row) {
    if (!opens || event.target.closest("input, a, button:not(.opener), label")) return;
    if (!open.delete(row)) open.add(row);
    show();
  }
  if (filter) filter.oninput = show;
  show();
}

// Calls work now, and again whenever the width of a place is another.
function watchWidth(place, work) {
  place.observer?.disconnect();
  let width = place.clientWidth;
  place.observer = new ResizeObserver(() => {
    if (Math.abs(place.clientWidth - width) > 1) { width = place.clientWidth; work(); }
  });
  place.observer.observe(place);
  work();
}

// Pixels between the margins of a sheet of A4 or Letter, and some less.
const PAPER = 680;
let printing = matchMedia("print").matches;

// A table too wide for its place, however its names and headings wrap, is set in smaller letters, or
// else becomes a block of labelled values a row, so that no column is lost. Its least width is asked
// of the browser, as fonts differ.
function fit(place) {
  const table = place.querySelector("table"), room = printing ? PAPER : place.clientWidth;
  place.classList.remove("folded", "compact");
  table.style.width = "0";
  const tooWide = () => table.offsetWidth > room;
  const wide = tooWide() && (place.classList.add("compact"), tooWide());
  table.style.width = "";
  if (wide) place.classList.replace("compact", "folded");
}

function fitAll(onPaper) {
  printing = onPaper;
  document.querySelectorAll(".table > table").forEach((table) => fit(table.parentNode));
}
matchMedia("print").addEventListener("change", (event) => fitAll(event.matches));
addEventListener("beforeprint", () => fitAll(true));
addEventListener("afterprint", () => fitAll(false));
