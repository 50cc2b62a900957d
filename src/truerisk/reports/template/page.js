// The page: a problem's findings, and what a reader may pick.

const DATA = JSON.parse(document.getElementById("data").textContent);
const find = (query) => document.querySelector(query);

function showProblem(problem) {
  find("#said ul").replaceChildren(...problem.said.map((line) => make("li", {}, line)));
  document.querySelectorAll(".unit").forEach((word) => { word.textContent = problem.unit; });
  const picked = new Set(problem.picked);
  showRecipes(problem, picked, () => showCurves(problem, picked));
  showCurves(problem, picked);
  showComparisons(problem);
  showMethods(problem);
  const charts = find("#tuning .charts");
  charts.replaceChildren();
  for (const chart of problem.charts) addChart(charts, chart);
  for (const heat of problem.heats) {
    charts.append(make("h3", {}, heat.title));
    drawHeat(charts, heat);
  }
  find("#tuning").hidden = !problem.charts.length && !problem.heats.length;
}

function addChart(place, chart) {
  const box = make("div", { class: "chart" });
  place.append(make("h3", {}, chart.title), box);
  if (chart.note) place.append(make("p", { class: "note" }, chart.note));
  drawChart(box, chart);
}

function showRecipes(problem, picked, changed) {
  const tick = (recipe) => {
    const i = problem.recipes.indexOf(recipe);
    const box = make("input", { type: "checkbox", "aria-label": `draw ${recipe.label}`, onchange: () => {
      if (!picked.delete(i)) picked.add(i);
      changed();
    } });
    box.checked = picked.has(i);
    return box;
  };
  const columns = [
    { title: "recipe", name: true, sort: (r) => r.label, cell: (r) => make("label", {}, tick(r), " ", breakable(r.label)) },
    { title: "runs", sort: (r) => r.runs.length, cell: (r) => make("button", { type: "button", class: "opener" }, r.endings) },
    ...problem.metrics.map((metric, i) => ({
      title: headingOf(metric), line: beginsLine(problem.metrics, i), sort: (r) => r.estimates[metric][0],
      cell: (r) => withError(r.estimates[metric], scaleOf(metric)),
    })),
  ];
  const constant = (m) => (problem.constants[m] ? withError(problem.constants[m], scaleOf(m)) : "–");
  sortable(find("#recipes .table"), columns, problem.recipes, {
    foot: Object.keys(problem.constants).length ? ["best constant", "", ...problem.metrics.map(constant)] : null,
    opens: (recipe) => runsOf(problem, recipe), chosen: (r) => problem.recipes.indexOf(r) === problem.selected,
    filter: find("#recipes input"), text: (r) => r.label,
  });
}

// A line for each split of several metrics, so that a metric's values stand below each other.
const splitOf = (metric) => (metric?.startsWith("metric/") ? metric.split("/").at(-1) : "");
function beginsLine(metrics, i) {
  const [split, before] = [splitOf(metrics[i]), splitOf(metrics[i - 1])];
  const several = metrics.filter((m) => splitOf(m) === split).length > 1;
  return split !== before && (several || !split);
}

function runsOf(problem, recipe) {
  const rows = recipe.estimates;
  const told = Object.keys(rows).filter((m) => rows[m][2] !== null)
    .map((m) => `${headingOf(m)} ${interval(rows[m], scaleOf(m))}`).join("; ");
  const place = make("div", { class: "table" });
  sortable(place, [
    { title: "seed", sort: (r) => [r.seed, r.fold].join(), cell: (r) => r.seed + (r.fold === null ? "" : `, fold ${r.fold}`) },
    { title: "ended", name: true, sort: (r) => r.status, cell: (r) => r.status + (r.reason ? `: ${r.reason}` : "") },
    ...problem.metrics.map((m, i) => ({ title: headingOf(m), line: beginsLine(problem.metrics, i), sort: (r) => r.values[i],
      cell: (r) => digits(r.values[i] === null ? null : scaleOf(m) * r.values[i]) })),
    { title: "files", name: true, cell: (r) => links(r) },
  ], recipe.runs, { opens: (run) => figuresOf(run, problem.followed) });
  const commands = make("details", {}, make("summary", {}, "command lines"),
    ...recipe.runs.map((r) => make("div", {}, make("code", {}, r.command))));
  return make("div", {}, told ? make("p", {}, `95 % intervals: ${told}.`) : "", place, commands);
}

const links = (run) => make("span", { class: "links" }, make("a", { href: run.folder }, "folder"), " ", make("a", { href: run.config }, "config"),
  " ", make("button", { type: "button", class: "opener" }, "figure"), " ", copier(run.command));

// The figures lie in the run's folder and are fetched when someone looks: a thousand would not fit in a page.
function figuresOf(run, followed) {
  const told = make("p", {}, "With intervals and diagnostics: ", make("code", {}, `truerisk draw ${run.name}`), ", in the folder of the study.");
  const missing = make("div", { class: "undrawn", hidden: "" }, make("div", { class: "chart" }), told);
  // most have this one, perhaps since the page was written
  const pictures = (run.figures.length ? run.figures : ["risk"]).map((name) => {
    const picture = make("img", { src: `${run.folder}figures/${encodeURIComponent(name)}.png`, alt: `${name} of ${run.name}`,
      onerror: () => { picture.remove(); missing.hidden = false; drawOwn(missing.firstChild, run, followed); } });
    return picture;
  });
  return make("div", { class: "figures" }, ...pictures, missing);
}

const titleOf = (split) => (split === "val" ? "validation" : split);
const wordsOf = (quantity) => quantity.replace("metric/", "").replaceAll("/", " ");
const bothOf = (quantity) => `${wordsOf(quantity)}; – – train, —— validation`;

function drawOwn(place, run, followed) {
  const lines = Object.entries(run.curves).map(([split, curve]) => ({ ...curve, low: [], high: [], n: [], color: 0, dashed: split === "train", name: titleOf(split) }));
  if (lines.length) drawChart(place, { x: "epoch", y: bothOf(followed.slice(0, -4)), lines, log_y: needsLogScale(lines) });
}

function copier(text) {
  const button = make("button", { type: "button", class: "copy", title: text, onclick: async () => {
    button.textContent = (await copy(text)) ? "copied" : "not allowed here";
    setTimeout(() => { button.textContent = "copy command"; }, 1500);
  } }, "copy command");
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // without a permission, or on a page that came by http, the older way may work
    const box = make("textarea", { readonly: "", class: "aside" }, text);
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}

function showCurves(problem, picked) {
  const place = find("#curves .chart"), kind = find("#curves select"), log = find("#curves input");
  const chart = () => {
    const lines = [...picked].sort((a, b) => a - b).flatMap((i, k) => ["train", "val"].map((split) => {
      const curve = problem.recipes[i].curves[`${kind.value}/${split}`];
      return curve && { ...curve, name: `${problem.recipes[i].label}, ${titleOf(split)}`, color: k, dashed: split === "train" };
    })).filter(Boolean);
    const constant = problem.constants[`${kind.value}/val`], across = lines.flatMap((line) => line.x);
    if (constant && across.length) {
      lines.push({ name: "best constant", reference: true, x: [Math.min(...across), Math.max(...across)], y: [constant[0], constant[0]], low: [], high: [], n: [] });
    }
    if (!log.dataset.chosen) log.checked = needsLogScale(lines);
    return { x: "epoch", y: bothOf(kind.value), lines, log_y: log.checked };
  };
  const names = new Set(problem.recipes.flatMap((r) => Object.keys(r.curves)));
  const kinds = [...names].filter((n) => n.endsWith("/val")).map((n) => n.slice(0, -4));
  kind.replaceChildren(...kinds.map((k) => make("option", { value: k }, wordsOf(k))));
  kind.parentNode.hidden = kinds.length < 2;
  kind.value = problem.followed.slice(0, -4);
  kind.onchange = () => drawChart(place, chart());
  log.onchange = () => { log.dataset.chosen = "by the reader"; drawChart(place, chart()); };
  drawChart(place, chart());
}

// Whether a difference that is shown is for the better: of an accuracy it is where the first is higher.
const worthOf = (c) => (["lower", "higher"].includes(c.verdict) ? ((c.verdict === "higher") === c.higher ? "better" : "worse") : "");
const COLORS = { better: "var(--good)", worse: "var(--ink)", "": "var(--faint)" };

function differences(place, rows, metric, unit, options = {}) {
  const reach = Math.max(...rows.flatMap((c) => c.difference.slice(2, 4).map(Math.abs)), 1e-30);
  const order = rows.map((c) => Math.abs(c.difference[0])).sort((a, b) => a - b);
  const near = Math.min(reach, 4 * (order[Math.floor(order.length / 2)] || reach));
  const scaled = scaleOf(metric);
  sortable(place, [
    { title: "first", name: true, sort: (c) => c.first, cell: (c) => breakable(c.first) },
    { title: "second", name: true, sort: (c) => c.second, cell: (c) => breakable(c.second) },
    { title: "first − second", sort: (c) => c.difference[0], cell: (c) => interval(c.difference, scaled) },
    { title: "95 %", bar: true, cell: (c) => bar(c.difference, near, COLORS[worthOf(c)]) },
    { title: "verdict: the first is", name: true, sort: (c) => c.verdict, cell: (c) => make("span", { class: `said ${worthOf(c)}` }, c.verdict, worthOf(c) && `, ${worthOf(c)}`) },
    { title: `${unit}s`, sort: (c) => c.difference[4], cell: (c) => `${c.difference[4]}${c.paired ? "" : ", unpaired"}` },
    { title: "p", sort: (c) => c.p, cell: (c) => chance(c.p) },
    { title: "p, Holm", sort: (c) => c.adjusted, cell: (c) => chance(c.adjusted) },
    { title: "effect", sort: (c) => c.effect, cell: (c) => digits(c.effect, 3) },
    { title: "P(first better)", sort: (c) => c.improvement[0], cell: (c) => interval([c.improvement[0], 0, c.improvement[1], c.improvement[2]]) },
    { title: "better on", sort: (c) => c.wins, cell: (c) => (c.wins === null ? "–" : `${Math.round(100 * c.wins)} %`) },
  ], rows, { text: (c) => `${c.first} ${c.second} ${c.verdict} ${worthOf(c)}`, ...options });
}

function showComparisons(problem) {
  const pick = find("#comparisons select"), metrics = Object.keys(problem.comparisons).filter((m) => problem.comparisons[m].length);
  pick.replaceChildren(...metrics.map((m) => make("option", { value: m }, headingOf(m))));
  find("#comparisons").hidden = !metrics.length;
  const show = () => differences(find("#comparisons .table"), problem.comparisons[pick.value], pick.value, problem.unit, { filter: find("#comparisons input") });
  pick.onchange = show;
  if (metrics.length) show();
}

function showMethods(problem) {
  const section = find("#methods"), unseen = DATA.titles[problem.unseen];
  section.hidden = problem.methods.length < 2 || problem.methods.every((m) => m.trials < 2);
  if (section.hidden) return;
  const reached = (m) => (m.reached ? ` (${m.reached[0]} of ${m.reached[1]} ${problem.unit}s)` : "");
  sortable(find("#methods .table"), [
    { title: "method", name: true, sort: (m) => m.name, cell: (m) => breakable(m.name) },
    { title: "settings tried", sort: (m) => m.trials, cell: (m) => String(m.trials) },
    { title: "picked", name: true, sort: (m) => m.picked, cell: (m) => breakable(m.picked) },
    { title: DATA.titles[problem.followed], sort: (m) => m.val[0], cell: (m) => withError(m.val) },
    { title: `${unseen}, cross-fitted`, sort: (m) => m.unseen[0], cell: (m) => interval(m.unseen) },
    { title: `steps to ${digits(problem.target, 3)}`, sort: (m) => m.steps, cell: (m) => `${m.steps === null ? "not reached" : digits(m.steps)}${reached(m)}` },
  ], problem.methods);
  find("#methods .note").textContent = `A method is what differs by more than numbers. Each is tuned on the ${DATA.titles[problem.followed]} of
    all ${problem.unit}s but one and its ${unseen} taken on that one, in turn. Steps: median over ${problem.unit}s until the ${DATA.titles[problem.followed]}
    first comes to ${digits(problem.target, 3)}.`;
  differences(find("#methods .contest"), problem.contest, problem.unseen, problem.unit);
}

function start() {
  find("#counted").textContent = DATA.counted;
  find("#made").textContent = DATA.made;
  find("#notes").textContent = DATA.notes.join(" ");
  find("#notes").hidden = !DATA.notes.length;
  const label = find("#problems"), pick = find("#problems select");
  label.hidden = DATA.problems.length < 2;
  pick.replaceChildren(...DATA.problems.map((p, i) => make("option", { value: i }, p.name)));
  pick.onchange = () => showProblem(DATA.problems[pick.value]);
  find("#across").hidden = !DATA.across;
  if (DATA.across) addChart(find("#across .charts"), DATA.across);
  showProblem(DATA.problems[0]);
}

start();
