"""What is learnt on the training split: a table's columns as features, the inputs' scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest
from truerisk.task.classification import label_name

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LARGEST = 1e150
"""What is greater has a square that double precision hardly holds."""
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
        dates: how dates in text were read, which holds for other rows too.
        odd: the first text of a column that is no number, for messages.

    >>> encoder = TableEncoder(["size", "colour"], {"colour": ["blue", "red"]}, "mean")
    >>> encoder.fit(torch.tensor([[1.0, 0], [3.0, 1], [float("nan"), 1]]))
    >>> encoder(torch.tensor([[float("nan"), 0], [5.0, float("nan")]]))
    tensor([[2., 1., 0.],
            [5., 0., 1.]])
    """

    def __init__(
        self,
        columns: Sequence[str],
        vocabulary: Mapping[str, Sequence[str]],
        missing: str,
        dates: str = "number",
        odd: Mapping[str, str] | None = None,
    ) -> None:
        self.odd = dict(odd or {})
        self.columns, self.missing, self.dates = list(columns), missing, dates
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

    def describe_fit(self, x: Tensor) -> list[str]:
        """Tell which columns are constant in the training rows.

        Args:
            x: the training rows.
        """
        filled = torch.where(x.isnan(), x.nanmean(0), x)
        same = (filled == filled[:1]).all(0)
        constant = [name for name, alike in zip(self.columns, same.tolist(), strict=True) if alike]
        if not constant:
            return []
        return [f"constant in the training split, so of no use: {', '.join(constant)}"]

    def describe_unseen(self, x: Tensor, split: str) -> list[str]:
        """Tell how many rows have a category that the training rows lacked, column by column.

        Args:
            x: the rows of another split.
            split: its name.
        """
        place, lines = {name: j for j, name in enumerate(self.columns)}, []
        for part in self.fitted:
            words = self.vocabulary.get(part["name"], [])
            known = set(part.get("categories", words))
            strange = [code for code, word in enumerate(words) if word not in known]
            column = x[:, place[part["name"]]]
            rows = torch.isin(column, torch.tensor(strange, dtype=column.dtype))
            if count := int(rows.sum()):
                example = words[int(column[rows][0])]
                lines.append(
                    f"{count} of {len(x)} {split} rows have in column '{part['name']}' a category "
                    f"that training lacked, such as '{example}': it counts as none"
                )
        return lines

    def state_dict(self) -> dict[str, Any]:
        """What was fitted, in plain texts and numbers."""
        if self.dates == "number":
            return {"columns": self.fitted}
        return {"columns": self.fitted, "dates": self.dates}

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
            example = self.odd.get(name, f"'{self.vocabulary[name][0]}'")
            raise ConfigError(
                f"data.source.path: column '{name}' was a number when the model was trained, and "
                f"this table has texts in it, such as {example}"
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


def list_features(state: Mapping[str, Any]) -> list[str]:
    """Return the names of the features in their order: a column, or COLUMN=CATEGORY one-hot.

    Args:
        state: of a `TableEncoder`.

    >>> list_features({"columns": [{"name": "a"}, {"name": "b", "categories": ["x", "y"]}]})
    ['a', 'b=x', 'b=y']
    """
    names: list[str] = []
    for part in state.get("columns", []):
        column = part["name"]
        words = part.get("categories")
        names += [str(column)] if words is None else [f"{column}={word}" for word in words]
    return names


def build_matrix(
    frame: DataFrame, texts: list[str], max_categories: int
) -> tuple[Tensor, dict[str, list[str]]]:
    """Return a table as float64 [n, columns]: categories as places in a vocabulary, gaps as NaN.

    Args:
        frame: the columns to learn from.
        texts: those that are categories.
        max_categories: different values that one may have.
    """
    vocabulary: dict[str, list[str]] = {}
    columns = []
    for name in frame.columns:
        if name in texts:
            codes, vocabulary[name] = _encode_texts(frame[name], max_categories)
        else:
            codes = _read_numbers(frame[name])
        # copied, as pandas may hand out memory that must not be written to
        columns.append(torch.as_tensor(codes.copy()))
    return torch.stack(columns, 1), vocabulary


def _read_numbers(column: Series) -> Any:
    import numpy as np

    values = column.to_numpy(dtype="float64", na_value=np.nan)
    large = np.flatnonzero(np.abs(values) > LARGEST)
    if len(large):
        what, row = f"{values[large[0]]:g}", column.index[large[0]] + 1
        if np.isinf(values[large[0]]):
            what = "infinite numbers"
        raise ConfigError(
            f"data.source: column '{column.name}' holds {what}, as in row {row}, which cannot be "
            "computed with: correct it, or divide the column"
        )
    return values


def _encode_texts(column: Series, max_categories: int) -> tuple[Any, list[str]]:
    import numpy as np
    import pandas as pd

    # 3.0 and 3 are one category, whether or not a gap has made its column floats
    texts = column.map(label_name, na_action="ignore")
    codes, words = pd.factorize(texts, sort=True)
    if len(words) > max_categories:
        raise ConfigError(
            f"data.source: column '{column.name}' holds texts of {len(words)} kinds, such as "
            f"'{words[0]}': leave it out with data.source.drop, correct what should be a number or "
            "a date (as in 2024-01-31), or raise data.source.max_categories"
        )
    # pandas writes -1 for a gap
    return np.where(codes < 0, np.nan, codes), [str(word) for word in words]


def _find_fill(values: Tensor, missing: str) -> float:
    """What stands for a gap in a column of numbers."""
    if missing == "most_frequent":
        # in their order, so that of several equally frequent values the least is taken
        different, counts = values.unique(return_counts=True)
        return float(different[counts.argmax()])
    if missing == "median":
        # torch's median is the lower of the two in the middle
        ordered = values.sort().values
        return float(ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    return float(values.mean())


KINDS = ("none", "feature", "channel", "global")


def check_kind(kind: str) -> str:
    """Return the kind, if there is such a standardization.

    Raises:
        ConfigError: there is none of that name.
    """
    if kind not in KINDS:
        hint = suggest(str(kind), KINDS)
        raise ConfigError(f"data.standardize is '{kind}': {hint} (one of {', '.join(KINDS)})")
    return kind


def _shared_axes(kind: str, ndim: int) -> tuple[int, ...]:
    """Return the axes of a stack of samples that share one mean and one scale."""
    if kind == "global":
        return tuple(range(ndim))
    if kind == "feature":
        return (0,)
    return (0, *range(2, ndim))


class Standardizer:
    """x ↦ (x − mean) / scale, with one mean and scale a feature, a channel, or for all numbers.

    The scale is the standard deviation √(1/N Σ (x − mean)²), or 1 where x is constant. A sample of
    shape (d,) has its features for channels. Without a mean it leaves x as it is.

    Args:
        mean: broadcast against samples; None for none.
        scale: likewise.

    >>> fitted = Standardizer.fit("feature", [torch.tensor([[0.0, 5.0], [2.0, 5.0]])])
    >>> fitted(torch.tensor([[3.0, 6.0]]))
    tensor([[2., 1.]])
    >>> fitted.raw(torch.tensor([[2.0, 1.0]]))
    tensor([[3., 6.]])
    """

    def __init__(self, mean: Tensor | None = None, scale: Tensor | None = None) -> None:
        self.mean, self.scale = mean, scale

    @classmethod
    def fit(cls, kind: str, chunks: Iterable[Tensor]) -> Standardizer:
        """Fit on chunks [n, *shape] of the training inputs, read once.

        Means and squared deviations of the chunks are merged in float64 (Chan, Golub & LeVeque
        1983, Algorithms for computing the sample variance, eq. 2.1).

        Args:
            kind: ``none``, ``feature``, ``channel`` or ``global``.
            chunks: of the training inputs; what their sizes are decides the last bits.

        Raises:
            ConfigError: there is no such kind.
        """
        if check_kind(kind) == "none":
            return cls()
        count, mean, squares = 0.0, torch.zeros(()), torch.zeros(())
        # mapped, as a loop would hold one chunk while the next is made
        for n, chunk_mean, variance in map(partial(_summarize_chunk, kind), chunks):
            delta = chunk_mean - mean
            squares = squares + variance * n
            squares = squares + delta.square() * (count * n / (count + n))
            mean, count = mean + delta * (n / (count + n)), count + n
        return cls(mean, _find_scale(squares / count, mean))

    def __call__(self, x: Tensor, in_place: bool = False) -> Tensor:
        """Standardize samples.

        Args:
            x: [n, *shape].
            in_place: whether x may be written to.
        """
        if self.mean is None or self.scale is None:
            return x
        mean = self.mean.to(x)
        # memory that has just been written to is in the cache; a fresh block is not even mapped
        shifted = x.sub_(mean) if in_place else x - mean
        # integers cannot be divided in place
        if not shifted.is_floating_point():
            return shifted / self.scale.to(x)
        return shifted.div_(self.scale.to(x))  # in place, as data may fill the memory

    def match_type(self, x: Tensor) -> Standardizer:
        """Return the same with its numbers in the type and on the device of samples."""
        if self.mean is None or self.scale is None:
            return self
        return Standardizer(self.mean.to(x), self.scale.to(x))

    def raw(self, x: Tensor) -> Tensor:
        """Undo it: x ↦ x · scale + mean."""
        if self.mean is None or self.scale is None:
            return x
        return x * self.scale.to(x) + self.mean.to(x)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the mean and the scale, if fitted."""
        if self.mean is None or self.scale is None:
            return {}
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Standardizer:
        """Restore the standardizer whose `state_dict` was kept."""
        return cls(state.get("mean"), state.get("scale"))


def _summarize_chunk(kind: str, chunk: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return how many numbers a mean is over, the means, and the variances, in float64."""
    axes, wide = _shared_axes(kind, chunk.ndim), chunk.to("cpu", torch.float64)
    mean = wide.mean(axes, keepdim=True)[0]
    return wide.numel() / mean.numel(), mean, wide.var(axes, correction=0, keepdim=True)[0]


def _find_scale(variance: Tensor, mean: Tensor) -> Tensor:
    """Return √variance, or 1 where it is only the rounding error of a constant."""
    std = variance.sqrt()
    # the mean of equal numbers is rounded, so their deviation need not be 0
    constant = std <= 10 * torch.finfo(torch.float64).eps * mean.abs()
    return torch.where(constant, torch.ones_like(std), std)
