// Elements, and tables that can be sorted, filtered and opened.

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

// columns: {title, sort(row), cell(row), name?, bar?}; what opens(row) returns is shown below a row; foot: cells of a last one.
function sortable(place, columns, rows, { opens = null, chosen = null, filter = null, text = null, foot = null } = {}) {
  let by = null, down = false;
  const open = new Set();
  const body = make("tbody");
  const heads = columns.map((column, i) => make("th", { scope: "col", class: column.name ? "name" : "" },
    column.sort ? make("button", { type: "button", onclick: () => sort(i) }, column.title) : column.title));
  place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body,
    ...(foot ? [make("tfoot", {}, make("tr", {}, ...foot.map((cell, i) => make("td", { class: columns[i].name ? "name" : "" }, cell))))] : [])));

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
  }
  function drawn(row) {
    const cells = columns.map((column) => make("td",
      { class: column.name ? "name" : column.bar ? "bar" : "" }, column.cell(row)));
    const classes = [opens ? "opens" : "", chosen?.(row) ? "chosen" : ""].join(" ").trim();
    const line = make("tr", { class: classes, onclick: (event) => toggle(event, row) }, ...cells);
    return open.has(row) ? [line, make("tr", { class: "inner" }, make("td", { colspan: columns.length }, opens(row)))] : [line];
  }
  function toggle(event, row) {
    if (!opens || event.target.closest("input, a, button, label")) return;
    if (!open.delete(row)) open.add(row);
    show();
  }
  if (filter) filter.oninput = show;
  show();
}
