// What a reader does, and what is seen of it; appended to a copy of the page.

const all = (query, place = document) => [...place.querySelectorAll(query)];
const texts = (query, place = document) => all(query, place).map((node) => node.textContent.trim());
const first = (place) => texts(`${place} tbody tr:not(.inner) > td:first-child`);
function type(box, text) { box.value = text; box.dispatchEvent(new Event("input", { bubbles: true })); }
function point(query, share) {
  const svg = document.querySelector(query);
  svg.scrollIntoView({ block: "center" });
  const frame = svg.getBoundingClientRect();
  const at = { clientX: frame.left + share * frame.width, clientY: frame.top + frame.height / 2 };
  const top = document.elementFromPoint(at.clientX, at.clientY);
  top.dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));
  return svg.contains(top);
}

async function desktop() {
  const found = { said: texts("#said li"), heads: texts("#recipes thead th"), before: first("#recipes") };
  const validation = all("#recipes thead button").find((b) => b.textContent === "test risk");
  validation.click();
  found.up = first("#recipes");
  found.sorted = validation.closest("th").getAttribute("aria-sort");
  validation.click();
  found.down = first("#recipes");
  found.cells = texts("#recipes tbody tr:not(.inner) > td:nth-child(2)");
  const box = document.querySelector("#recipes input[type=search]");
  type(box, "adam 0.1");
  found.filtered = first("#recipes");
  type(box, "nothing like it");
  found.none = first("#recipes");
  type(box, "");
  found.lines = texts("#curves .legend li");
  all("#recipes tbody input").find((b) => b.ariaLabel === "draw adam lr=10").click();
  found.more = texts("#curves .legend li");
  found.epochs = texts("#curves .chart > svg text[text-anchor=middle]");
  found.inside = point("#curves .chart > svg", 0.99);
  found.tip = document.querySelector("#tip").hidden ? null : document.querySelector("#tip b").textContent;
  found.values = texts("#tip tr");
  document.querySelector("#curves .chart > svg").dispatchEvent(new PointerEvent("pointerleave"));
  found.gone = document.querySelector("#tip").hidden;
  const kind = document.querySelector("#curves select");
  kind.value = "error";
  kind.dispatchEvent(new Event("change"));
  found.errors_drawn = document.querySelector("#curves .chart text:last-of-type").textContent;
  all("#recipes tbody tr").find((row) => row.textContent.includes("sgd lr=1e+08")).click();
  found.opened = texts("#recipes tr.inner tbody tr td:nth-child(2)");
  found.links = all("#recipes tr.inner a").map((a) => a.getAttribute("href"));
  found.commands = texts("#recipes tr.inner code");
  found.metrics = texts("#comparisons option");
  found.verdicts = texts("#comparisons td .said");
  found.bars = all("#comparisons td.bar svg").length;
  found.methods = texts("#methods .table:first-of-type tbody tr td:first-child");
  found.charts = texts("#tuning h3");
  point("#tuning .chart > svg", 0.3);
  found.tuned = texts("#tip tr");
  found.heats = texts(".heat td");
  return found;
}

async function phone() {
  const found = { width: innerWidth, scrolls: document.documentElement.scrollWidth,
    paper: getComputedStyle(document.body).backgroundColor, svg: document.querySelector("#curves .chart > svg").clientWidth };
  return found;
}

function tell(found) {
  const pre = document.createElement("pre");
  pre.id = "found";
  pre.textContent = JSON.stringify({ ...found, errors });
  document.body.append(pre);
}

function report(work) {
  window.onload = () => setTimeout(() => work().catch((e) => ({ crash: String(e.stack) })).then(tell), 100);
}
