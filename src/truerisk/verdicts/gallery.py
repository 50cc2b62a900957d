"""The gallery: one HTML page of all reproductions, readable offline, in light and in dark."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from truerisk.core.files import write_atomic
from truerisk.verdicts.drawing import sheet
from truerisk.verdicts.reproduction import Reproduction, load

STYLE = """
:root { color-scheme: light dark; --ink: #222; --ground: #fff; --faint: #777; --line: #ddd }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --ground: #16181d; --faint: #9a9a9a; --line: #3a3a3a } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 46rem; margin: auto; padding: 1rem }
nav td:first-child { white-space: nowrap }
section { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem }
img { width: 100%; height: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line) }
pre { white-space: pre-wrap; overflow-wrap: anywhere }
.source, th { color: var(--faint); font-weight: normal; font-size: .9rem }
.holds { color: #2e7d4f }
.does { color: #c0392b; font-weight: bold }
.inconclusive { color: #b07d00 }
@media (prefers-color-scheme: dark) { .holds { color: #7fd0a0 } .does { color: #ff8a7a } }
"""


Found = tuple[Reproduction, Path, dict[str, Any]]
"""A reproduction that has been run: its study's folder and its recorded verdict."""


def write(names: Sequence[str], outputs: Path) -> Path:
    """Write ``gallery.html``, its table as ``gallery.md`` and its figures as ``gallery.png``."""
    found = list(studied(names, outputs))
    outputs.mkdir(exist_ok=True)
    path = outputs / "gallery.html"
    write_atomic(path, page([_row(*f) for f in found], [_section(*f) for f in found]))
    write_atomic(path.with_suffix(".md"), table(found))
    if found:
        sheet([folder / "figure.png" for _, folder, _ in found], path.with_suffix(".png"))
    return path


def studied(names: Sequence[str], outputs: Path) -> Iterator[Found]:
    """The reproductions that have been run; a full study comes before a quick one."""
    for reproduction in map(load, names):
        for quick in (False, True):
            folder = outputs / reproduction.study(quick)
            if (folder / "verdict.json").exists():
                yield reproduction, folder, json.loads((folder / "verdict.json").read_text())
                break


def table(found: Sequence[Found]) -> str:
    """The verdicts in Markdown."""
    rows = ["| `truerisk reproduce …` | what is claimed | verdict |", "|---|---|---|"]
    for reproduction, folder, verdict in found:
        quick = "" if folder.name == reproduction.name else " --quick"
        holding = [claim["verdict"] for claim in verdict["claims"].values()].count("holds")
        count = f"{holding} of {len(verdict['claims'])} hold"
        rows.append(f"| `{reproduction.name}{quick}` | {reproduction.sentence} | {count} |")
    return "\n".join(rows) + "\n"


def page(rows: Sequence[str], sections: Sequence[str]) -> str:
    """The whole page."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>truerisk: reproductions</title><style>{STYLE}</style>"
        f"<h1>Reproductions</h1><nav><table>{''.join(rows)}</table></nav>{''.join(sections)}</html>"
    )


def _row(reproduction: Reproduction, _folder: Path, found: dict[str, Any]) -> str:
    name = reproduction.name
    sentence = escape(reproduction.sentence)
    return (
        f'<tr><td><a href="#{name}">{name}</a><td>{sentence}<td>{_verdict(found["verdict"])}</tr>'
    )


def _section(reproduction: Reproduction, folder: Path, found: dict[str, Any]) -> str:
    command = f"truerisk reproduce {reproduction.name}"
    if folder.name != reproduction.name:
        command += " --quick"
    remarks = "".join(f"<p>{escape(text)}</p>" for text in reproduction.remarks)
    claims = "".join(_claim(claim) for claim in found["claims"].values())
    return (
        f'<section id="{reproduction.name}"><h2>{escape(reproduction.sentence)}</h2>'
        f"<pre>{escape(reproduction.formula)}</pre>{_picture(folder)}"
        "<table><tr><th>claim<th>source says<th>measured, 95 %<th>verdict</tr>"
        f"{claims}</table>{remarks}"
        f'<pre>{command}</pre><p class="source">{escape(reproduction.source)}</p></section>'
    )


def _claim(claim: dict[str, Any]) -> str:
    value, low, high = (claim["finding"][key] for key in ("value", "low", "high"))
    measured = f"{value:.4g}" if low == high else f"{value:.4g} [{low:.4g}, {high:.4g}]"
    says = f'{escape(claim["says"])}<br><span class="source">{escape(claim["source"])}; '
    says += f"tolerance: {escape(claim['tolerance'])}</span>"
    return (
        f"<tr><td>{says}<td>{escape(claim['range'])}<td>{measured}"
        f"<td>{_verdict(claim['verdict'])}</tr>"
    )


def _verdict(verdict: str) -> str:
    return f'<span class="{verdict.split()[0]}">{verdict}</span>'


def _picture(folder: Path) -> str:
    light, dark = (_data(folder / f"figure{suffix}.svg") for suffix in ("", "-dark"))
    return (
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="the measured points beside the theory"></picture>'
    )


def _data(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
