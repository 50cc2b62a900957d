"""What a source of data returns: samples, and where it is known, the distribution P behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.data.encoder import TableEncoder
from truerisk.task import get_task
from truerisk.task.classification import find_class_type, label_name


class DataInfo(NamedTuple):
    """What the other parts must know of the data to fit it.

    ``num_outputs`` is the number of classes, or of target columns for a regression. ``target_mean``
    and ``target_scale`` are those of the training targets, a number a column, where a loss of
    differences is to see them standardized; ``class_counts`` tells the training samples of each
    class, and ``class_type`` which of ``number``, ``bool`` and ``text`` the labels were.
    """

    task: str
    input_shape: tuple[int, ...]
    num_outputs: int
    class_names: tuple[str, ...] | None
    target_mean: Sequence[float] | None = None
    target_scale: Sequence[float] | None = None
    class_counts: Sequence[int] | None = None
    class_type: str = "text"


@runtime_checkable
class Inputs(Protocol):
    """Inputs read one at a time, all of one ``shape``: for data larger than memory."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def __getitem__(self, index: int) -> Tensor:
        """Sample ``index``, of shape ``shape``."""
        ...


class Population(Protocol):
    """A distribution P that can be sampled, in the raw units of its source.

    Samples give the true risk of any model. What gives the Bayes risk beside it depends on the
    task: `ClassPopulation` for classes and labels, `TargetPopulation` for quantities.
    """

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n independent samples, inputs [n, *shape] and targets as the task types them.

        Args:
            n: how many.
            generator: on whose device they are drawn, and lie.
        """
        ...


class ClassPopulation(Population, Protocol):
    """A distribution P of classes, labels or tokens whose probabilities are known."""

    def bayes(self, x: Tensor) -> Tensor:
        """Return p(k | x) at raw inputs: of classes [n, K], of labels [n, labels].

        Of tokens it is [n, T, V]; a population of those may have ``marginals()`` too, the
        probabilities [1, T, V] without x, which the best constant is made of.
        """
        ...


class TargetPopulation(Population, Protocol):
    """A distribution P of quantities whose means are known."""

    def mean(self, x: Tensor) -> Tensor:
        """Return E[y | x] at raw inputs, [n, outputs]."""
        ...


class Packer(Protocol):
    """What turns documents that have been split into sequences of tokens: `TextPacker`."""

    tokenizer: Any
    rows: Any
    notes: list[str]

    def fit(self, rows: Tensor) -> None:
        """Fit the tokenizer to the training documents, whose numbers are int64 [d]."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the tokenizer that another run has fitted."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what was fitted, as plain values."""
        ...

    def describe_texts(self) -> dict[str, Any]:
        """Return how many documents and bytes there are, and their digest."""
        ...

    def pack(self, parts: Mapping[str, Tensor]) -> None:
        """Cut the documents of each split, int64 [d] by its name, into ``rows``."""
        ...


@dataclass
class Expected:
    """What is known of samples beforehand, as they are for a run that has been trained.

    A source that has a parameter ``expected`` is given it.

    Args:
        task: what the run has learned.
        num_outputs: its number of classes, labels or target columns.
        classes: their names where it has any.
        columns: of a table, that it has learned from.
        may_lack_targets: whether samples without targets will do, as for predictions.

    Attributes:
        lacks_targets: whether these have none, as the source has found.
    """

    task: str
    num_outputs: int
    classes: Sequence[str] = ()
    columns: Sequence[str] = ()
    may_lack_targets: bool = False
    lacks_targets: bool = False

    def make_targets(self, x: Any) -> Any:
        """Return targets that stand in for those that are not there.

        Args:
            x: the inputs, as they were read.
        """
        self.lacks_targets = True
        return get_task(self.task).stand_in_targets(x, self.num_outputs, self.classes)


@dataclass(frozen=True)
class Samples:
    """Inputs ``x`` [n, *shape] and targets ``y``: int64 [n] classes or float [n, outputs].

    ``test`` is the source's own test set, ``population`` the distribution P if known, and
    ``encoder`` what turns x into features once fitted on the training split. The last ``last_val``
    samples are the source's own validation set, and ``notes`` what a reader of the run should know
    of how they were read, a line each. ``identities`` tell samples apart in tables of predictions,
    such as ``row`` and the column of ids, a value a sample. ``asides`` are columns that splits and
    weights go by, arrays [n] by name, which are no inputs; ``test_asides`` are the test set's.
    ``weights`` say how much each sample counts, [n], and ``test_weights`` those of the test set.
    Where there is a ``packer``, x are documents and y stands in for targets: once the documents are
    split, it cuts those of each split into sequences of tokens. ``class_names`` may be numbers or
    truth values: they become texts, and ``class_type`` tells what they were.

    Raises:
        ConfigError: fewer than two classes, or x and y of different lengths.
    """

    x: Tensor | Inputs
    y: Tensor
    task: str
    test: tuple[Tensor | Inputs, Tensor] | None = None
    population: Population | None = None
    class_names: Sequence[Any] | None = None
    encoder: TableEncoder | None = None
    last_val: int | None = None
    notes: Sequence[str] = ()
    identities: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    asides: Mapping[str, Any] = field(default_factory=dict)
    test_asides: Mapping[str, Any] = field(default_factory=dict)
    weights: Tensor | None = None
    test_weights: Tensor | None = None
    packer: Packer | None = None
    class_type: str = "text"

    def __post_init__(self) -> None:
        task = get_task(self.task)
        pairs = [(self.x, self.y), self.test]
        for x, y in filter(None, pairs):
            if len(x) != len(y):
                raise ConfigError(f"data.source gives {len(x)} inputs x but {len(y)} targets y")
        if self.population is not None:
            task.check_population(self.population)
        task.check_inputs(self.x)
        task.check_targets(self.y, self.num_outputs)
        if self.class_names and not all(isinstance(name, str) for name in self.class_names):
            object.__setattr__(self, "class_type", find_class_type(self.class_names))
            object.__setattr__(self, "class_names", list(map(label_name, self.class_names)))

    @property
    def num_outputs(self) -> int:
        """The number of classes, target columns or tokens; of texts their packer knows it."""
        return get_task(self.task).count_targets(self.x, self.y, self.class_names)
