"""The page in windows of 1,200 and 390 pixels and on paper; runs' figures, and their commands."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from truerisk.reports.study_report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Browser:
    """One tab of a headless chromium; `run` returns what an expression of the page's comes to.

    Messages are JSON that ends in a zero byte, over the pipes that chromium has as its file
    descriptors 3 and 4.
    """

    def __init__(self, profile):
        requests, self._out = os.pipe()
        self._in, answers = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # bash, as the two ends do not have the numbers 3 and 4 here, and dash knows one digit only
        command = ["bash", "-c", f'exec "$@" 3<&{requests} 4>&{answers}', "bash", CHROMIUM, *flags]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, pass_fds=(requests, answers), stdout=quiet, stderr=quiet
        )
        os.close(requests)
        os.close(answers)
        self._answers = os.fdopen(self._in, "rb")
        self._count, self._session = 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **parameters):
        """Send a command and wait for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda m: m.get("id") == self._count)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _wait(self, wanted):
        while True:
            text = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                assert byte, "chromium has ended"
                text += byte
            if wanted(message := json.loads(text)):
                return message

    def show(self, page, width=1200, height=900, dark=False, media=""):
        """Open a file in a window of some width, in CSS pixels; ``media="print"`` is paper."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Page.navigate", url=Path(page).as_uri())
        self._wait(lambda m: m.get("method") == "Page.loadEventFired")
        if media:  # after the page has been drawn for a screen, as a reader prints it
            self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.run("new Promise((done) => setTimeout(done, 100))")

    def run(self, expression):
        """Evaluate an expression, as one that a click begins: it may use the clipboard."""
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path):
        """Write a picture of the whole page, to look at."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        """End chromium."""
        os.close(self._out)
        self._process.terminate()
        self._process.wait(timeout=20)
        self._answers.close()


NAMES = {
    "schedule_free_adamw": "truerisk.optimizer.ScheduleFreeAdamW",
    "lbfgs_backtracking": "truerisk.optimizer.BacktrackingLBFGS",
    "adamw": "torch.optim.AdamW",
}
SPLITS = ("train", "val", "test")
METRICS = ("mae", "rmse", "r2", "spearman", "mean_absolute_percentage_error")
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def page(synthetic, tmp_path_factory):
    """Three recipes of long names at two rates and five seeds: a regression in six metrics."""
    top = tmp_path_factory.mktemp("fits")
    for k, (name, target) in enumerate(NAMES.items()):
        for lr in (1e-3, 1e-2):
            for seed in range(5):
                risk = 3000 + 100 * k + 7.5 * (seed * (k + 2)) ** 2 + 2e4 * lr
                config = synthetic.config(name, lr, data="diabetes", seed=seed)
                config["optimizer"]["_target_"] = target
                config["data"] |= {"folds": 5, "fold": seed}
                config["choices"]["regularizer"] = ["early_stopping", "input_gradient", "dropout"]
                config["regularizer"] |= {"input_gradient": {}, "dropout": {}}
                summary = {f"risk/{s}": risk for s in SPLITS} | {"risk/gap": risk / 10}
                summary |= {f"metric/{m}/{s}": risk / 99 for s in SPLITS for m in METRICS}
                summary |= {f"constant/{s}": 5950.0 for s in SPLITS}
                folder = synthetic.write(top / f"{name},lr={lr},seed={seed}", config, summary)
                (folder / "figures").mkdir()
                if seed != 1:
                    (folder / "figures" / "risk.png").write_bytes(PICTURE)
    with pytest.MonkeyPatch.context() as patch:  # the page alone, without the figures beside it
        patch.setattr("truerisk.reports.study_report.save_charts", lambda *_: None)
        return write_report([top]).page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    found.call("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    yield found
    found.close()


OPEN = """
document.querySelector("#recipes tbody .opener").click();
document.querySelector("#recipes .within .opener").click();
new Promise((done) => setTimeout(done, 300));
"""
SEEN = """(() => {
  const all = (query, place = document) => [...place.querySelectorAll(query)];
  const places = all(".table, .heat").filter((place) => place.clientWidth);
  const cells = all(".table td, .table th, .heat td").filter((cell) => cell.offsetWidth);
  return {
    page: [document.documentElement.scrollWidth, innerWidth],
    wide: places.map((place) => [place.className, place.scrollWidth, place.clientWidth]),
    cut: cells.filter((cell) => cell.scrollWidth > cell.clientWidth + 1
      || cell.getBoundingClientRect().right > innerWidth + 1).map((cell) => cell.textContent),
    low: places.filter((place) => place.scrollHeight > place.clientHeight + 1).length,
    rows: all("#recipes > .table > table > tbody > tr:not(.inner)")
      .map((row) => row.querySelectorAll(":scope > td").length),
    shown: all("#recipes > .table > table > tbody > tr:not(.inner) > td")
      .filter((cell) => cell.getBoundingClientRect().width > 20).length,
  };
})()"""
COLUMNS = 2 + 4 + len(METRICS) * len(SPLITS)
"""Recipe, runs, three risks and the gap, and the metrics."""


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 768, 390])
def test_no_column_is_lost(browser, page, width, dark, opened):
    browser.show(page, width, dark=dark)
    if opened:
        browser.run(OPEN)
    seen = browser.run(SEEN)
    assert seen["page"] == [width, width]
    assert len(seen["wide"]) == 4 + opened, seen["wide"]
    assert all(scrolls <= holds for _, scrolls, holds in seen["wide"]), seen["wide"]
    assert seen["cut"] == []
    assert seen["rows"] == [COLUMNS] * 6 and seen["shown"] == COLUMNS * 6


@pytest.mark.parametrize("width", [816, 700])  # the sheets' own, and what is between their margins
def test_paper_has_every_row_and_column(browser, page, width):
    browser.show(page, width, media="print")
    seen = browser.run(SEEN)
    assert all(scrolls <= holds for _, scrolls, holds in seen["wide"]), seen["wide"]
    assert seen["cut"] == [] and seen["low"] == 0
    assert seen["shown"] == COLUMNS * 6
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000


def test_a_table_that_fits_stays_one(browser, page):
    """Comparisons fit into 1,200 pixels, and recipes do where there are few metrics."""
    browser.show(page)
    assert browser.run("document.querySelector('#comparisons .table').className") == "table"
    values = "document.querySelectorAll('#recipes > .table > table > tbody td.line')"
    tops = browser.run(f"[...{values}].slice(0, 3).map((cell) => cell.offsetLeft)")
    assert (
        len(set(tops)) == 1
    )  # the splits of the metrics begin lines of their own, one below another


def test_a_run_opens_its_figure_and_copies_its_command(browser, page):
    browser.show(page)
    assert (
        browser.run("document.querySelectorAll('img').length") == 0
    )  # none before it is asked for
    browser.run(OPEN)
    picture = "document.querySelector('#recipes .figures img')"
    source = browser.run(f"{picture}.getAttribute('src')")
    seeds = "[...document.querySelectorAll('#recipes .within tr > td:first-child')]"
    seeds = browser.run(f"{seeds}.map((cell) => cell.textContent)")
    assert [seeds[0], seeds[-1]] == ["0, fold 0", "4, fold 4"]
    assert source.endswith("/figures/risk.png") and browser.run(f"{picture}.naturalWidth") == 1
    browser.run("document.querySelector('#recipes .within button.copy').click()")
    browser.run("new Promise((done) => setTimeout(done, 300))")
    command = browser.run("document.querySelector('#recipes .within details code').textContent")
    assert browser.run("navigator.clipboard.readText()") == command
    assert command.startswith("truerisk train") and command.endswith("seed=0"), command
    assert (
        browser.run("document.querySelector('#recipes .within button.copy').textContent")
        == "copied"
    )


def test_what_may_not_use_the_clipboard_copies_too(browser, page):
    browser.show(page)
    browser.run("navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))")
    browser.run(OPEN)
    browser.run("document.querySelectorAll('#recipes .within button.copy')[1].click()")
    command = browser.run(
        "document.querySelectorAll('#recipes .within details code')[1].textContent"
    )
    assert browser.run("navigator.clipboard.readText()") == command
    assert command.endswith("seed=1")  # and not what the clipboard held before


def test_of_a_run_without_a_figure_the_page_draws_the_curves(browser, page):
    browser.show(page)
    browser.run(OPEN)
    browser.run("document.querySelectorAll('#recipes .within tr.opens .opener')[1].click()")
    browser.run("new Promise((done) => setTimeout(done, 300))")
    shown = ".figures .undrawn:not([hidden])"
    texts = browser.run(f"[...document.querySelectorAll('{shown} p')].map((p) => p.textContent)")
    assert len(texts) == 1 and "truerisk draw " in texts[0] and "seed=1" in texts[0]
    paths = browser.run(f"document.querySelectorAll('{shown} path[fill=none]').length")
    assert paths == 2  # training and validation


def test_the_page_stays_small(page):
    """What a reader's browser runs: 40 kilobytes, whatever the study."""
    text = page.read_text()
    data = text[text.index('type="application/json">') : text.index("</script>")]
    assert len(text) - len(data) < 40_000
    assert len(data) / 30 < 2_500  # a run of six metrics
