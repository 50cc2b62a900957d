"""The page of all reproductions, from verdicts that lie in the folders of studies."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from truerisk.verdicts import Finding, claim, exact_finding
from truerisk.verdicts.gallery import save_themes, write_gallery
from truerisk.verdicts.reproduction import JudgedClaim, overall_verdict, write_verdict
from truerisk.verdicts.runs import Runs


def judged(finding, says="a number"):
    @claim(says, source="Nobody 1900", why="rounding", expected=1.0, within=0.5)
    def made(_runs):
        return finding

    return JudgedClaim(made, finding, made.judge_finding(finding))


@pytest.fixture
def studied(tmp_path):
    """A study of condition_number with two claims, its figure, and the page."""
    folder = tmp_path / "condition_number"
    folder.mkdir()
    found = {"one": judged(exact_finding(1.0)), "two": judged(Finding(3.0, 2.5, 3.5), "1 < 2 & 3")}
    write_verdict(found, folder)
    save_themes(lambda figure: figure.add_subplot().plot([0, 1]), folder)
    return folder, write_gallery(["condition_number", "softmax_overflow"], tmp_path).read_text()


def test_the_worst_claim_decides():
    good, bad = judged(exact_finding(1.0)), judged(exact_finding(3.0))
    unsure = judged(Finding(1.0, 0.4, 1.6))
    assert overall_verdict({"a": good}) == "holds"
    assert overall_verdict({"a": good, "b": unsure}) == "inconclusive"
    assert overall_verdict({"a": unsure, "b": bad}) == "does not hold"


def test_verdicts_are_recorded_with_what_they_rest_on(studied):
    folder, _ = studied
    found = json.loads((folder / "verdict.json").read_text())
    assert found["verdict"] == "does not hold"
    assert found["claims"]["one"]["range"] == "1 ± 0.5"
    assert found["claims"]["two"]["finding"] == {"value": 3.0, "low": 2.5, "high": 3.5}
    assert found["claims"]["two"]["source"] == "Nobody 1900"


def test_a_reproduction_has_its_section(studied):
    _, page = studied
    assert "<h2>The condition number sets the speed" in page
    assert "Boyd &amp; Vandenberghe 2004" in page
    assert "<pre>truerisk reproduce condition_number</pre>" in page
    assert "1 &lt; 2 &amp; 3" in page and "3 [2.5, 3.5]" in page
    assert page.count("<section") == 1  # the other one has not been run


def test_the_page_needs_nothing_beside_it(studied):
    _, page = studied
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) >= 3
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_a_figure_for_print_and_for_a_dark_screen(studied):
    folder, _ = studied
    assert {path.name for path in folder.glob("figure*")} == {
        *("figure.svg", "figure.png", "figure-dark.svg", "figure-dark.png")
    }
    assert (folder / "figure.svg").read_text() != (folder / "figure-dark.svg").read_text()


def test_the_table_and_the_sheet_beside_the_page(studied):
    folder, _ = studied
    rows = (folder.parent / "gallery.md").read_text().splitlines()
    assert rows[2] == "| **Descent** | | |"
    assert rows[3].startswith("| `condition_number` | The condition number sets")
    assert rows[3].endswith("| 1 of 2 hold |") and rows[4] == ""
    assert (folder.parent / "gallery.png").stat().st_size > 1000


def test_the_contents_show_every_verdict_below_its_topic(studied):
    folder, page = studied
    contents, sections = page.split("</nav>")
    assert '<th colspan="3">Descent</tr>' in contents and "<h1>Descent</h1>" in sections
    assert re.findall(r'<span class="(\w+)" title="[^"]+">(.)<', contents) == [
        *(("holds", "✓"), ("does", "✗"))
    ]
    text = (folder.parent / "gallery.md").read_text()
    assert "## Descent\n\n### condition_number\n" in text
    assert '<img src="condition_number/figure.png"' in text
    assert "| 1 < 2 & 3 | 1 ± 0.5 | 3 [2.5, 3.5] | does not hold |" in text


def test_a_panel_without_runs_says_so(monkeypatch):
    from matplotlib.figure import Figure

    from truerisk.reproductions import structural_risk

    found = {"L2": {0.0: np.array([1.0, 2.0]), 0.1: np.array([2.0, 3.0])}}
    monkeypatch.setattr(
        structural_risk, "find_risks", lambda runs, brake, split: found.get(brake, {})
    )
    figure = Figure()
    structural_risk.draw_figure(Runs([]), figure)
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes[:5]]
    assert not said[0] and all("no runs" in texts[0] for texts in said[1:])
