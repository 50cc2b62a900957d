"""The page in a real browser: sorted, filtered, opened, hovered; wide, narrow, dark."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from truerisk.reports.study_report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

WATCH = """<script>
window.errors = [];
window.onerror = (message) => errors.push(message);
console.error = console.warn = (...words) => errors.push(words.join(" "));
</script>"""

READER = (Path(__file__).parent / "reader.js").read_text()


def browse(page, work, *flags, size="1200,900"):
    """Open a copy of the page, do the work, and read what it found."""
    tail = f"<script>{READER} report({work});</script>"
    copy = page.with_name("copy.html")
    text = page.read_text().replace("<head>", f"<head>{WATCH}")
    copy.write_text(text.replace("</body>", f"{tail}</body>"))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size}",
        f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        *flags, copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    pre = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert pre, done.stderr[-2000:]
    return json.loads(html.unescape(pre[1]))


@pytest.fixture(scope="module")
def page(synthetic, tmp_path_factory):
    """Two methods, three rates with three seeds each, and one rate at which all runs diverged."""
    top = tmp_path_factory.mktemp("study")
    level = {0.1: 0.5, 1.0: 0.3, 10.0: 0.9}
    for k, optimizer in enumerate(("sgd", "adam")):
        for lr, risk in level.items():
            for seed in range(3):
                risk_ = risk + 0.1 * k + 0.01 * seed + 0.001 * (seed * (k + 2)) ** 2
                summary = {f"risk/{split}": risk_ for split in ("train", "val", "test")}
                summary |= {f"error/{split}": 0.3 * risk_ for split in ("train", "val", "test")}
                config = synthetic.config(optimizer, lr, seed=seed)
                synthetic.write(top / f"{optimizer}-{lr}-{seed}", config, summary)
    for seed in range(2):
        config = synthetic.config("sgd", 1e8, seed=seed)
        reason = "step 3: </script><b>loss</b>"
        synthetic.write(top / f"lost-{seed}", config, {}, status="diverged", reason=reason)
    return write_report([top]).page


@pytest.fixture(scope="module")
def found(page):
    return browse(page, "desktop")


def test_nothing_is_wrong_and_nothing_is_fetched(page, found):
    assert found["errors"] == [] and "crash" not in found, found.get("crash")
    text = page.read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "@import" not in text


def test_the_best_comes_first_and_headings_sort(found):
    assert found["before"][0] == "sgd lr=1" and found["before"][-1] == "sgd lr=1e+08"
    order = ["sgd lr=1", "adam lr=1", "sgd lr=0.1", "adam lr=0.1", "sgd lr=10", "adam lr=10"]
    assert found["up"] == [*order, "sgd lr=1e+08"]
    assert found["down"] == [*order[::-1], "sgd lr=1e+08"]  # without a risk it is last both ways
    assert found["sorted"] == "ascending"
    assert found["cells"][-1] == "0 of 2, 2 diverged"


def test_the_filter_keeps_rows_with_every_word(found):
    assert found["filtered"] == ["adam lr=0.1"]
    assert found["none"] == ["nothing matches"]


def test_curves_of_what_is_picked_and_values_under_the_pointer(found):
    assert "sgd lr=1" in found["lines"] and "adam lr=10" not in found["lines"]
    assert set(found["more"]) == {*found["lines"], "adam lr=10"}
    assert found["inside"] and found["tip"] == "epoch 3"
    assert found["epochs"] == ["0", "1", "2", "3"]
    row = next(row for row in found["values"] if row.startswith("sgd lr=1, validation"))
    assert re.fullmatch(r"sgd lr=1, validation0\.40 \[0\.34, 0\.45\]n = 3", row)
    assert found["gone"]
    assert found["errors_drawn"].startswith("error")


SCALES = """async () => {
  const log = document.querySelector("#curves input");
  const pick = () => document.querySelector("#recipes tbody input[aria-label$='lr=9']").click();
  const found = [log.checked];
  pick();
  found.push(log.checked);
  log.click();
  pick();
  log.click();
  found.push(log.checked);
  pick();
  pick();
  found.push(log.checked);
  return { found };
}"""


def test_curves_have_the_scale_of_the_figures_until_the_reader_chooses(synthetic, tmp_path):
    for lr, risk in {0.1: 0.5, 9: 50.0}.items():
        for seed in range(2):
            summary = {f"risk/{split}": risk + 0.1 * seed for split in ("train", "val", "test")}
            synthetic.write(
                tmp_path / f"{lr}-{seed}", synthetic.config("sgd", lr, seed=seed), summary
            )
    page = write_report([tmp_path]).page
    # drawn with both, without the high one, with both by the reader's own choice, and still
    assert browse(page, SCALES)["found"] == [True, False, False, False]


def test_a_row_opens_to_its_runs_their_files_and_their_commands(page, found):
    assert found["opened"] == ["diverged: step 3: </script><b>loss</b>"] * 2
    assert found["links"][:2] == ["../lost-0/", "../lost-0/config.yaml"]
    assert (page.parent / found["links"][1]).exists()
    assert found["commands"][0] == "truerisk train optimizer.lr=100000000.0 optimizer=sgd seed=0"


def test_comparisons_methods_and_tuning_are_there(found):
    assert found["metrics"] == ["test risk", "test error, %"]
    assert len(found["verdicts"]) >= 15 and "lower, better" in found["verdicts"]
    assert found["bars"] >= 15
    assert sorted(found["methods"]) == ["adam", "sgd"]
    assert found["charts"] == ["Risk against lr", "Best found against trials spent"]
    assert any(row.startswith("sgd, validation") for row in found["tuned"])


def test_green_is_what_is_better_also_where_higher_is(synthetic, tmp_path):
    """Of an accuracy the lower one is not; of a risk it is."""
    for lr, level in ((0.1, 0.9), (0.2, 0.6), (0.3, 0.3)):
        for seed in range(4):
            value = level + 0.001 * (seed * lr) ** 2
            config = synthetic.config(lr=lr, seed=seed)
            summary = {"metric/accuracy/test": value, "risk/val": level, "risk/test": value}
            folder = synthetic.write(tmp_path / f"{lr}-{seed}", config, summary)
            facts = json.loads((folder / "metadata.json").read_text())
            (folder / "metadata.json").write_text(
                json.dumps({**facts, "metrics": {"accuracy": True}})
            )
    work = """async () => { const pick = document.querySelector("#comparisons select");
      const found = {};
      for (const { value } of pick.options) {
        pick.value = value;
        pick.onchange();
        found[value] = all("#comparisons td .said")
          .map((word) => [word.textContent, getComputedStyle(word).color]);
      }
      return found; }"""
    found = browse(write_report([tmp_path]).page, work)
    green, ink = "rgb(31, 122, 77)", "rgb(29, 31, 35)"
    # the lowest risk is selected, which has the lowest accuracy
    assert found["risk/test"] == [["lower, better", green]] * 2 + [["higher, worse", ink]]
    assert found["metric/accuracy/test"] == [["lower, worse", ink]] * 2 + [
        ["higher, better", green]
    ]


def test_a_phone_in_the_dark(page):
    narrow = browse(page, "phone", "--blink-settings=preferredColorScheme=0", size="500,900")
    assert narrow["errors"] == []
    assert narrow["width"] <= 500 and narrow["scrolls"] <= narrow["width"]
    assert narrow["svg"] > 0.85 * narrow["width"]
    assert max(map(int, re.findall(r"\d+", narrow["paper"]))) < 60
