"""The tidy table of everything measured: a row a run and metric."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.core.files import replacing
from truerisk.reports.study import Study

if TYPE_CHECKING:
    import pandas as pd


def tidy(study: Study) -> pd.DataFrame:
    """Columns problem, recipe, the keys that differ, seed, folder, status, metric, value, …

    A run that measured nothing has one row without a metric, so that none is missing.
    """
    import pandas as pd

    table = pd.DataFrame(list(_rows(study)))
    return table.astype({"epoch": "Int64"}) if "epoch" in table else table


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for problem in study.problems:
        for recipe in problem.recipes:
            values = {**problem.values, **recipe.values}
            keys = {name: values.get(key) for key, name in study.names.items()}
            head = {"problem": problem.name, "recipe": recipe.label, **keys}
            for run in recipe.runs:
                own = {"seed": run.config["seed"]["base"], "folder": str(run.folder)}
                own |= {"status": run.status}
                for name, measured in run.summary.items():
                    yield {**head, **own, "metric": name, **measured._asdict()}
                if not run.summary:
                    yield {**head, **own}


def write_results(study: Study, folder: Path) -> list[Path]:
    """Write ``results.csv``, and ``results.parquet`` where pyarrow is installed."""
    table = tidy(study)
    written = [folder / "results.csv"]
    with replacing(written[0]) as part:
        table.to_csv(part, index=False)
    if find_spec("pyarrow"):
        # a key may be a number here and a word there
        mixed = [name for name in table if table[name].dtype == object]
        table = table.astype(dict.fromkeys(mixed, "string"))
        written.append(folder / "results.parquet")
        with replacing(written[-1]) as part:
            table.to_parquet(part, index=False)
    return written
