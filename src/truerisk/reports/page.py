"""The page: one HTML file with its data, style and script inside."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from truerisk.reports.chart import Chart, Charts
from truerisk.reports.findings import Findings
from truerisk.reports.payload import payload
from truerisk.reports.study import Study

SCRIPTS = ("number.js", "table.js", "chart.js", "page.js")
"""In the order in which they are needed."""


def page(
    where: Path,
    study: Study,
    found: Sequence[Findings],
    drawn: Sequence[Charts],
    across: Chart | None,
) -> str:
    """The page's text; ``where`` is the folder it will lie in."""
    data = json.dumps(payload(where, study, found, drawn, across), separators=(",", ":"))
    parts = {
        "TITLE": html.escape(title(where)),
        "STYLE": template("style.css"),
        "DATA": data.replace("<", "\\u003c"),  # no text in it can end the script element
        "SCRIPT": "\n".join(template(name) for name in SCRIPTS),
    }
    text = template("page.html")
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part)
    return text


def title(where: Path) -> str:
    """The name of the study, which is the folder's that holds the report."""
    return f"{where.parent.name} · truerisk" if where.name == "report" else "truerisk report"


def template(name: str) -> str:
    """A file of the page."""
    return (files("truerisk.reports") / "template" / name).read_text(encoding="utf-8")
