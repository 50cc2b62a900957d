"""The gallery: a figure of each reproduction, and one HTML page of all, in light and in dark."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from truerisk.core.atomic_files import write_atomic
from truerisk.show.style import GALLERY_COLORS, SERIES_COLORS, THEMES, write_css_colors
from truerisk.verdicts.reproduction import (
    Reproduction,
    decode_finding,
    read_verdict,
    sort_by_topic,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


INCHES = (7.2, 4.8)
SIZE = 13.0
"""Points of the text: a figure of the gallery is shown smaller than a run's."""


def save_themes(
    draw_figure: Callable[[Figure], None], folder: Path, name: str = "figure"
) -> list[Path]:
    """Write ``name`` and ``name-dark`` as SVG and PNG.

    Args:
        draw_figure: fills an empty figure. Colors come from the style: ``C0`` … ``C4`` for series,
            and matplotlib's own for the rest.
        folder: where the files lie.
        name: theirs, without an ending.

    Returns:
        Their paths: SVG, PNG, and both for a dark screen.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for theme, stem in (("light", name), ("dark", f"{name}-dark")):
        with rc_context(theme_parameters(theme)):
            figure = Figure(figsize=INCHES, layout="constrained")
            # a canvas of its own: pyplot would choose one by the screen, and keep the figure
            FigureCanvasAgg(figure)
            # drawn anew for each theme, as colors are chosen when a line is made
            draw_figure(figure)
            for ending in ("svg", "png"):
                path = folder / f"{stem}.{ending}"
                figure.savefig(path, dpi=160)
                written.append(path)
    return written


def theme_parameters(theme: str) -> Any:
    """Return matplotlib's parameters for a theme, by name."""
    from cycler import cycler

    colors = THEMES[theme]
    ink = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    faint = ("axes.edgecolor", "xtick.color", "ytick.color")
    ground = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(ink, colors["ink"]),
        **dict.fromkeys(faint, colors["faint"]),
        **dict.fromkeys(ground, colors["ground"]),
        "axes.prop_cycle": cycler(color=SERIES_COLORS[theme]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titlesize": SIZE,
        "axes.labelsize": SIZE,
        "grid.color": colors["grid"],
        "font.size": SIZE,
        "lines.linewidth": 2.4,
        "svg.hashsalt": "truerisk",  # without it, ids in the file differ from run to run
        "svg.fonttype": "path",
    }


def say_not_run(axes: Axes) -> None:
    """Write into a panel that there are no runs for it, as in most quick studies."""
    where: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, "no runs\n(--quick has none)", color="gray", fontsize="small", **where)


def set_decimal_ticks(axis: Axis) -> None:
    """Write plain numbers, 1, 2, 5, 10, … on a logarithmic axis of few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    # matplotlib writes 10⁰ and 10¹ alone, which says little over one decade
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


SIGNS = {"holds": "✓", "does not hold": "✗", "inconclusive": "?", "not run with --quick": "–"}
"""The verdict on a claim in the table of contents."""

LAYOUT = """
:root { color-scheme: light dark }
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
.holds { color: var(--holds) }
.does { color: var(--fails); font-weight: bold }
.inconclusive { color: var(--open) }
nav td:last-child { white-space: nowrap }
.signs { letter-spacing: .15em; cursor: default }
@media (max-width: 34rem) {
  nav td:first-child, nav td:last-child { white-space: normal; width: 5.5rem } }
"""


class RecordedStudy(NamedTuple):
    """A reproduction that has been run: its study's folder and its recorded verdict."""

    reproduction: Reproduction
    folder: Path
    verdict: dict[str, Any]

    @property
    def is_quick(self) -> bool:
        """Whether it is the smaller study."""
        return self.folder.name != self.reproduction.name


def write_gallery(names: Sequence[str], outputs: Path) -> Path:
    """Write ``gallery.html``, the same as ``gallery.md``, and its figures as ``gallery.png``.

    Args:
        names: of reproductions; those that have not been run are left out.
        outputs: the folder with their studies.

    Returns:
        The path of the page.
    """
    studies = list(find_studies(names, outputs))
    outputs.mkdir(exist_ok=True)
    path = outputs / "gallery.html"
    write_atomic(path, html_page(studies))
    text = f"{markdown_table(studies)}\n{markdown_sections(studies)}"
    write_atomic(path.with_suffix(".md"), text)
    if studies:
        pictures = [study.folder / "figure.png" for study in studies]
        save_contact_sheet(pictures, path.with_suffix(".png"))
    return path


def find_studies(names: Sequence[str], outputs: Path) -> Iterator[RecordedStudy]:
    """Find the reproductions that have been run; a full study comes before a quick one.

    Args:
        names: of reproductions.
        outputs: the folder with their studies.
    """
    for reproduction in sort_by_topic(names):
        # the full study says more than the quick one, and may have been run after it
        for quick in (False, True):
            folder = outputs / reproduction.study_name(quick)
            if verdict := read_verdict(folder):
                yield RecordedStudy(reproduction, folder, verdict)
                break


def group_by_topic(studies: Sequence[RecordedStudy]) -> dict[str, list[RecordedStudy]]:
    """Group studies by topic, in their order."""
    topics = dict.fromkeys(study.reproduction.topic for study in studies)
    return {t: [study for study in studies if study.reproduction.topic == t] for t in topics}


def markdown_table(studies: Sequence[RecordedStudy]) -> str:
    """Write the verdicts in Markdown, topic by topic."""
    rows = ["| `truerisk reproduce …` | what is claimed | verdict |", "|---|---|---|"]
    for topic, group in group_by_topic(studies).items():
        rows.append(f"| **{topic}** | | |")
        rows += [
            f"| `{_arguments(study)}` | {study.reproduction.sentence} | {count_verdicts(study)} |"
            for study in group
        ]
    return "\n".join(rows) + "\n"


def count_verdicts(study: RecordedStudy) -> str:
    """Write how many of a study's claims hold, and how many it left out."""
    verdicts = [claim["verdict"] for claim in study.verdict["claims"].values()]
    count = f"{verdicts.count('holds')} of {len(verdicts)} hold"
    if left_out := verdicts.count("not run with --quick"):
        count += f", {left_out} not run with --quick"
    return count


def markdown_sections(studies: Sequence[RecordedStudy]) -> str:
    """Write each study in Markdown: what the page has of it, below a heading of its topic."""
    parts = []
    for topic, group in group_by_topic(studies).items():
        parts += [f"## {topic}", *map(_markdown_section, group)]
    return "\n\n".join(parts) + "\n"


def _markdown_section(study: RecordedStudy) -> str:
    reproduction = study.reproduction
    table = ["| claim | source says | measured, 95 % | verdict |", "|---|---|---|---|"]
    for claim in study.verdict["claims"].values():
        # a bar, as in |λ|, would end the cell
        says, measured = claim["says"].replace("|", "\\|"), decode_finding(claim["finding"])
        table.append(f"| {says} | {claim['range']} | {measured} | {claim['verdict']} |")
    picture = f"{study.folder.name}/figure.png"
    alt = f"What was measured for {reproduction.name}, beside the theory"
    return "\n\n".join(
        [
            f"### {reproduction.name}",
            reproduction.sentence,
            f"    {reproduction.formula}",
            f"Source: {reproduction.source}. Takes about {reproduction.cost}.",
            f'<img src="{picture}" width="640" alt="{alt}">',
            "\n".join(table),
            *reproduction.remarks,
        ]
    )


def _arguments(study: RecordedStudy) -> str:
    """Write what to give ``truerisk reproduce`` for a study."""
    if study.is_quick:
        return f"{study.reproduction.name} --quick"
    return study.reproduction.name


def save_contact_sheet(pictures: Sequence[Path], path: Path, columns: int = 4) -> None:
    """Write one PNG of several, side by side.

    Args:
        pictures: at least one.
        path: the file.
        columns: how many stand in a row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(2.4 * columns, 1.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    # places without a picture stay empty
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, picture in zip(figure.axes, pictures, strict=False):
        axes.imshow(imread(picture), interpolation="antialiased")
    figure.savefig(path, dpi=110)


def html_page(studies: Sequence[RecordedStudy]) -> str:
    """Write the whole page: a table of all verdicts, then a section a reproduction."""
    style = f"{write_css_colors(GALLERY_COLORS)}{LAYOUT}"
    rows, sections = [], []
    for topic, group in group_by_topic(studies).items():
        rows += [f'<tr><th colspan="3">{escape(topic)}</tr>', *map(_index_row, group)]
        sections += [f"<h1>{escape(topic)}</h1>", *map(_html_section, group)]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>truerisk: reproductions</title><style>{style}</style>"
        f"<h1>Reproductions</h1><nav><table>{''.join(rows)}</table></nav>{''.join(sections)}</html>"
    )


def _index_row(study: RecordedStudy) -> str:
    name, sentence = study.reproduction.name, escape(study.reproduction.sentence)
    verdict = _mark_verdict(study.verdict["verdict"])
    # one sign a claim, which says the rest where a mouse rests on it
    signs = "".join(
        f'<span class="{c["verdict"].split()[0]}" title="{escape(c["says"])}: {c["verdict"]}">'
        f"{SIGNS[c['verdict']]}</span>"
        for c in study.verdict["claims"].values()
    )
    shown = name.replace("_", "_<wbr>")  # where a narrow window may break it
    return (
        f'<tr><td><a href="#{name}">{shown}</a><td>{sentence}<td>{verdict}'
        f'<br><span class="signs">{signs}</span></tr>'
    )


def _html_section(study: RecordedStudy) -> str:
    """Write a reproduction's claim, formula, figure, table of verdicts, remarks, and source."""
    reproduction = study.reproduction
    remarks = "".join(f"<p>{escape(text)}</p>" for text in reproduction.remarks)
    claims = "".join(_claim_row(claim) for claim in study.verdict["claims"].values())
    return (
        f'<section id="{reproduction.name}"><h2>{escape(reproduction.sentence)}</h2>'
        f"<pre>{escape(reproduction.formula)}</pre>{_embed_figure(study.folder)}"
        "<table><tr><th>claim<th>source says<th>measured, 95 %<th>verdict</tr>"
        f"{claims}</table>{remarks}<pre>truerisk reproduce {_arguments(study)}</pre>"
        f'<p class="source">{escape(reproduction.source)}</p></section>'
    )


def _claim_row(claim: dict[str, Any]) -> str:
    measured = str(decode_finding(claim["finding"]))
    says = f'{escape(claim["says"])}<br><span class="source">{escape(claim["source"])}; '
    says += f"tolerance: {escape(claim['tolerance'])}</span>"
    verdict = _mark_verdict(claim["verdict"])
    return f"<tr><td>{says}<td>{escape(claim['range'])}<td>{measured}<td>{verdict}</tr>"


def _mark_verdict(verdict: str) -> str:
    return f'<span class="{verdict.split()[0]}">{verdict}</span>'


def _embed_figure(folder: Path) -> str:
    # inside the page, so that the one file can be sent
    light, dark = (_data_url(folder / f"figure{suffix}.svg") for suffix in ("", "-dark"))
    return (
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="the measured points beside the theory"></picture>'
    )


def _data_url(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
