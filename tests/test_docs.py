"""The documentation: pages that list something list all of it, and their commands can be run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import truerisk
from truerisk.cli import main
from truerisk.config.check import check_config
from truerisk.verdicts.reproduction import load_reproduction, reproduction_names, sort_by_topic

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def read_commands(page):
    """Commands that stand in blocks of their own or in a line, continued lines put together."""
    text = page.read_text().replace("\\\n", " ")
    return [" ".join(c.split()) for c in re.findall(r"(?:^    |`)(truerisk [^`\n]+)", text, re.M)]


def test_the_reference_has_every_name():
    listed = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.M)
    homes = [f"truerisk.{home}.{name}" for name, home in truerisk._HOMES.items()]
    assert listed == homes


def test_the_page_on_data_has_every_option():
    text = (DOCS / "data.md").read_text()
    options = [f.stem for f in (ROOT / "conf" / "data").glob("*.yaml") if f.stem[0] != "_"]
    cells = " ".join(re.findall(r"^\| (`[^|]+) \|", text, re.M))
    rows = set(re.findall(r"`(\w+)`", cells))
    written = set(re.findall(r"data=(\w+)", text))
    assert [name for name in sorted(options) if name not in rows | written] == []
    # those that are made or come with a library have a row of their own
    assert set(options) - rows <= {"table", "text", "hub", "arrays"}


def test_the_gallery_has_every_claim():
    """With its sentence, and the verdict that the README tells."""
    gallery, readme = ((p).read_text() for p in (DOCS / "gallery.md", ROOT / "README.md"))
    ordered = sort_by_topic(reproduction_names())
    assert re.findall(r"^### (\S+)$", gallery, re.M) == [r.name for r in ordered]
    topics = list(dict.fromkeys(reproduction.topic for reproduction in ordered))
    assert re.findall(r"^## (.+)$", gallery, re.M) == topics
    for page in (gallery, readme):  # a table of contents, topic by topic
        assert re.findall(r"^\| \*\*(.+)\*\* \| \| \|$", page, re.M) == topics
        rows = re.findall(r"^\| \[?`(\w+)`", page, re.M)
        assert [row for row in rows if row in reproduction_names()] == [r.name for r in ordered]
    for name in reproduction_names():
        row = re.search(rf"^\| `{name}` (\|.*\|)$", readme, re.M)
        assert row and load_reproduction(name).sentence in row[1]
        assert f"[`{name}`](#{name}) {row[1]}" in gallery
        assert f"\n\n{load_reproduction(name).sentence}\n" in gallery


def test_the_guide_goes_through_its_topics():
    text = (DOCS / "reading_guide.md").read_text()
    topics = ["risk", "ill-conditioning", "gradients", "hessian", "line search", "condition number"]
    topics += ["stochastic gradient", "stability", "exploding"]
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    assert len(sections) == len(topics)
    for topic, section in zip(topics, sections, strict=True):
        assert topic in section.splitlines()[0].lower()
        assert "truerisk " in section and "<img src=" in section


@pytest.mark.parametrize("journey", ["A mini-batch", "A λ", "A cell"])
def test_a_journey_through_the_code_visits_few_files_that_there_are(journey):
    page = (DOCS / "how_a_run_works.md").read_text()
    text = page.partition(f"\n## {journey}\n")[2].partition("\n## ")[0]
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert 0 < len({Path(name).name for name in files}) <= 8
    package = Path(truerisk.__file__).parent
    assert all(list(package.rglob(name)) for name in files)


@pytest.mark.parametrize("command", read_commands(DOCS / "reading_guide.md"))
def test_a_command_of_the_guide_can_be_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    what, *given = shlex.split(command)[1:]
    if what == "reproduce":
        assert set(given) <= set(reproduction_names())
    elif "-m" in given:
        assert main(["plan", *given]) == 0
        assert "impossible" not in capsys.readouterr().out
    else:
        check_config(truerisk.compose(given))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_place_and_its_pictures(page):
    settings = (ROOT / "mkdocs.yml").read_text()
    assert f": {page.name}\n" in settings
    for picture in re.findall(r'<img src="([^"]+)"', page.read_text()):
        assert (DOCS / picture).is_file()


MKDOCS = shutil.which("mkdocs", path=str(ROOT / ".venv" / "bin")) or shutil.which("mkdocs")


@pytest.mark.skipif(MKDOCS is None, reason="mkdocs is not installed (make docs)")
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    build = [MKDOCS, "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # of Material's own end, as in the Makefile
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in pages} == {page.stem for page in PAGES} | {"404"}
    for page in pages:
        text = page.read_text()
        assert not re.search(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)"', text)
        assert "unpkg" not in text
    api = (tmp_path / "site" / "api.html").read_text()
    assert all(f'.{name}"' in api for name in truerisk.__all__)
    assert "<blockquote>" not in api  # as Markdown reads a doctest
