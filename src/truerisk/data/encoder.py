"""The columns of a table as features, learnt on the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest

MISSING = ("refuse", "mean", "median", "most_frequent", "drop")


class TableEncoder:
    """Fills gaps and writes categories one-hot, as fitted on the training rows.

    It reads a float64 matrix [n, columns] in which NaN is a gap and a categorical column holds
    places in its ``vocabulary``, a list of texts. Categories that the training rows lack become
    zeros. Gaps in numbers are filled by the training rows' mean, median or most frequent value;
    gaps in categories by the most frequent one.

    Args:
        columns: names of the matrix's columns.
        vocabulary: texts of the categorical ones.
        missing: what to do about gaps, one of ``MISSING``.

    >>> encoder = TableEncoder(["size", "colour"], {"colour": ["blue", "red"]}, "mean")
    >>> encoder.fit(torch.tensor([[1.0, 0], [3.0, 1], [float("nan"), 1]]))
    >>> encoder(torch.tensor([[float("nan"), 0], [5.0, float("nan")]]))
    tensor([[2., 1., 0.],
            [5., 0., 1.]])
    """

    def __init__(
        self, columns: Sequence[str], vocabulary: Mapping[str, Sequence[str]], missing: str
    ) -> None:
        self.columns, self.missing = list(columns), missing
        self.vocabulary = {name: list(words) for name, words in vocabulary.items()}
        self.fitted: list[dict[str, Any]] = []

    def fit(self, x: Tensor) -> None:
        """Learn fill values and categories from the training rows.

        Raises:
            ConfigError: a column has no value in them.
        """
        self.fitted = [self._fit_column(n, x[:, j]) for j, n in enumerate(self.columns)]

    def __call__(self, x: Tensor) -> Tensor:
        """Return features [n, width] of the rows."""
        place = {name: j for j, name in enumerate(self.columns)}
        columns = [x[:, place[part["name"]]] for part in self.fitted]
        return torch.cat(list(map(self._encode_column, self.fitted, columns)), 1)

    def state_dict(self) -> dict[str, Any]:
        """What was fitted, in plain texts and numbers."""
        return {"columns": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another table's training rows gave.

        Raises:
            ConfigError: this table lacks one of the columns, or has texts where numbers were.
        """
        for part in state["columns"]:
            self._check_column(part["name"], "categories" in part)
        self.fitted = [dict(part) for part in state["columns"]]

    def _check_column(self, name: str, categorical: bool) -> None:
        if name not in self.columns:
            hint = suggest(name, self.columns)
            raise ConfigError(f"data.source.path: the table lacks the column '{name}'; {hint}")
        if categorical and name not in self.vocabulary:
            raise ConfigError(
                f"data.source: column '{name}' was categorical when the model was trained: "
                f"add it to data.source.categorical"
            )
        if not categorical and name in self.vocabulary:
            raise ConfigError(
                f"data.source.path: column '{name}' was a number when the model was trained, and "
                f"this table has texts in it, such as '{self.vocabulary[name][0]}'"
            )

    def _fit_column(self, name: str, column: Tensor) -> dict[str, Any]:
        values = column[~column.isnan()]
        if not len(values):
            raise ConfigError(
                f"data.source: column '{name}' has no value in the training split; leave it out "
                "with data.source.drop"
            )
        if name not in self.vocabulary:
            return {"name": name, "fill": _find_fill(values, self.missing)}
        words = self.vocabulary[name]
        # only those that occur in training: a column of zeros would say nothing
        categories = sorted(words[int(code)] for code in values.unique())
        fill = words[int(_find_fill(values, "most_frequent"))]
        return {"name": name, "fill": fill, "categories": categories}

    def _encode_column(self, part: dict[str, Any], column: Tensor) -> Tensor:
        if "categories" not in part:
            return torch.where(column.isnan(), part["fill"], column).unsqueeze(1)
        place = {word: k for k, word in enumerate(part["categories"])}
        codes = [place.get(word, len(place)) for word in self.vocabulary[part["name"]]]
        # unknown categories get a place of their own, whose column is cut off again
        lookup = torch.tensor([*codes, place[part["fill"]]])
        index = lookup[torch.where(column.isnan(), len(codes), column).long()]
        return torch.nn.functional.one_hot(index, len(place) + 1)[:, :-1].to(column.dtype)


def _find_fill(values: Tensor, missing: str) -> float:
    """What stands for a gap in a column of numbers."""
    if missing == "most_frequent":
        different, counts = values.unique(return_counts=True)
        return float(different[counts.argmax()])
    if missing == "median":
        # torch's median is the lower of the two in the middle
        ordered = values.sort().values
        return float(ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    return float(values.mean())
