"""The data of a run: loaded, split, standardized, and ready to be batched."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.errors import (
    FAULTS,
    ConfigError,
    UserError,
    describe_fault,
    list_own_lines,
)
from truerisk.core.rng import named_generator
from truerisk.data.encoder import Standardizer, check_kind
from truerisk.data.partition import Rows, choose_subset, partition_rows
from truerisk.data.plan import check_batch_size
from truerisk.data.samples import DataInfo, Expected, Inputs, Packer, Population, Samples
from truerisk.data.split import (
    InputRows,
    LoaderSplit,
    Split,
    TensorSplit,
    WeightedSplit,
    sample_shape,
    stack_inputs,
)
from truerisk.data.split_rule import (
    check_column,
    check_folds,
    cut_groups,
    deal_folds,
    deal_groups,
    number_groups,
    parse_rule,
    read_times,
    split_by_name,
    split_groups,
    split_in_time,
)
from truerisk.data.target_notes import (
    check_range,
    describe_alike,
    describe_imbalance,
    describe_quantities,
    name_targets,
)
from truerisk.data.token_rows import (
    RowNames,
    TokenOwners,
    TokenRows,
    TokenSplit,
    TokenTargets,
)
from truerisk.task import get_task

MEMORY = 2 * 2**30
"""Bytes of inputs up to which ``in_memory: auto`` holds them."""
CHUNK = 4096
"""Samples that the standardizer is fitted on at a time; another number would change last bits."""
CHUNK_NUMBERS = 2**19
"""Numbers of those at most, which are held in double precision."""
COPIED = 64 * 2**20
"""Bytes of inputs up to which splits get tensors of their own, which are faster to read."""


class RunData:
    """A source's samples as train, validation and test splits that know their own shapes.

    ``source`` is `Samples`, or a function that returns them; a ``seed`` it accepts and was not
    given is filled with the run's. Splits, label noise and the choice of ``num_train`` samples
    depend on ``seed`` alone, and what is fitted (standardization, a table's categories and fill
    values) is fitted on the training samples used. ``test`` counts only where the source has no
    test set; ``all`` makes every sample a test sample, for a run trained elsewhere.

    `DataModule` is the same for a ``lightning.Trainer``.

    ``notes`` tell how the data were read, a line each. ``suited`` names the tasks that the run's
    loss is for, which decide where a source's task is ``auto``. Where ``predicting`` is set,
    samples may lack targets; ``single`` says that targets are held in single precision.
    ``default_kind`` is the ``standardize`` that nobody need have asked for.
    ``identities`` tell the samples of each split apart, a value each; where ``has_own_test`` is
    set, those of the source's own test set are counted by themselves.

    Args:
        source: the samples, or a function that makes them.
        batch_size: samples a mini-batch, or ``full``.
        val: share or number of samples held out for validation.
        test: share or number of samples held out for the test, null for none, or ``all``.
        split: ``random``; ``group:COLUMN``, where no group is on both sides and errors are
            clustered; ``time:COLUMN``, where the past trains and the future tests;
            ``fixed:COLUMN``, which names the split.
        stratify: whether a random split, or one of groups, keeps the classes' shares.
        folds: of cross-validation, one of which is tested while the others are trained and
            validated on; None for none. In time, the past of a fold is.
        fold: the one that is tested, from 0.
        sampler: None takes each training sample once an epoch; ``balanced`` draws as many with
            replacement, classes with equal chances; ``weighted`` by the samples' weights.
        num_train: use only so many training samples.
        label_noise: share of training labels replaced by another class, or of targets moved up by
            10 of their deviations.
        standardize: ``none``, ``feature``, ``channel`` or ``global``.
        standardize_target: whether the loss of a regression sees its targets with mean 0 and
            deviation 1 on the training split; ``auto`` where it is a loss of differences.
        workers: processes that read data which does not fit in memory.
        in_memory: whether data is held in memory; ``auto`` does so up to 2 GiB.
        seed: seed of every draw.

    Raises:
        ConfigError: a value out of range, here or in `prepare`.
    """

    def __init__(
        self,
        source: Samples | Callable[..., Samples],
        batch_size: int | str = 100,
        val: float = 0.2,
        test: float | str | None = 0.2,
        split: str = "random",
        folds: int | None = None,
        fold: int = 0,
        sampler: str | None = None,
        stratify: bool = True,
        num_train: int | None = None,
        label_noise: float = 0.0,
        standardize: str = "feature",
        standardize_target: bool | str = "auto",
        workers: int = 0,
        in_memory: bool | str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()  # Lightning's, where this is a DataModule
        self.source, self.seed = source, seed
        self.order_seed = seed
        self.suited: Sequence[str] = ()
        self.notes: list[str] = []
        self.predicting, self.single = False, True
        self.expected: Expected | None = None
        self.identities: dict[str, Mapping[str, Any]] = {}
        self.has_own_test = False
        self.batch_size = check_batch_size(batch_size)
        self.val_size, self.test_size, self.num_train_asked = val, test, num_train
        number = isinstance(label_noise, int | float) and not isinstance(label_noise, bool)
        if not number or not 0 <= label_noise <= 1:
            raise ConfigError(f"data.label_noise is {label_noise!r}: give a share from 0 to 1")
        self.label_noise = float(label_noise)
        self.standardize, self.default_kind = check_kind(standardize), "feature"
        if standardize_target not in (True, False, "auto"):
            raise ConfigError(
                f"data.standardize_target is {standardize_target!r}: give true, false or auto"
            )
        self.standardize_target = standardize_target
        if in_memory not in (True, False, "auto"):
            raise ConfigError(f"data.in_memory is {in_memory!r}: give true, false or auto")
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ConfigError(f"data.workers is {workers!r}: give a whole number ≥ 0")
        self.workers, self.in_memory = workers, in_memory
        self.rule, self.stratify = parse_rule(split), bool(stratify)
        if sampler not in (None, "balanced", "weighted"):
            raise ConfigError(f"data.sampler is {sampler!r}: give null, balanced or weighted")
        self.sampler = sampler
        check_folds(folds, fold)
        self.folds, self.fold = folds, fold
        self.groups: dict[str, Any] = {}
        self.packer: Packer | None = None
        self.weights: dict[str, Tensor] = {}
        self.standardizer = Standardizer()
        self.population: Population | None = None
        self.train: Any = None
        self.val: Any = None
        self.test: Any = None
        self._ready, self._held = False, True
        self._given: dict[str, Any] = {}
        self._encoder_state: dict[str, Any] = {}

    def prepare(self) -> None:
        """Load and split the data, once."""
        if self._ready:
            return
        samples = self._load_samples()
        parts = self._split_samples(samples)
        self.has_own_test = samples.test is not None
        if samples.packer is None:
            self.identities = {k: identify_rows(samples, k, part) for k, part in parts.items()}
        else:
            parts = self._pack_documents(samples.packer, parts)
        self._hold_inputs(parts)
        self._encode_columns(samples, parts)
        self.population = samples.population
        self.info = _describe_data(samples, next(iter(parts.values())).x)
        if samples.packer is not None:
            self.info = self.info._replace(num_outputs=samples.packer.tokenizer.size)
        self._check_given()
        # after the split: noisy validation labels would hide what is measured
        self._add_label_noise(parts)
        # after it too, and on the training inputs alone: nothing of the others leaks in
        self._fit_standardizer(parts)
        self._check_quantities(parts)
        self._fit_targets(parts)
        self._count_classes(parts)
        self._build_splits(parts)
        self._ready = True

    # --- samples ------------------------------------------------------------------------------

    @property
    def num_train(self) -> int:
        """The number of training samples."""
        if self.train is None:
            return 0
        return len(self.train)

    def sampling_chances(self) -> Tensor | None:
        """Return the chance of each training sample, [n], up to a factor; None where all are taken.

        Raises:
            ConfigError: there are no classes, or no weights, to draw by.
        """
        if self.sampler is None or self.train is None:
            return None
        if self.sampler == "weighted":
            if "train" not in self.weights:
                raise ConfigError("data.sampler=weighted: set data.source.weight to a column")
            return self.weights["train"]
        if not get_task(self.info.task).has_classes:
            raise ConfigError(
                f"data.sampler=balanced: {get_task(self.info.task).phrase} has no classes"
            )
        y = self.train.y.cpu()
        return 1.0 / torch.bincount(y)[y].double()

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        """Draw fresh samples from P, standardized, with the device and type that the splits have.

        Args:
            n: how many.
            generator: of the draws.

        Raises:
            ConfigError: P is not known.
        """
        if self.population is None:
            raise ConfigError(
                "the distribution of this data is not known, so it has no true risk; data with a "
                "known one: gaussians, teacher, polynomial, noisy_linear, adding, "
                "temporal_order, copy_memory, parity, modular_addition, rare_classes"
            )
        x, y = self.population.sample(n, generator)
        like = next(s for s in (self.test, self.val, self.train) if s is not None)
        return like.place_samples(self.standardizer(x), y)

    def raw(self, x: Tensor) -> Tensor:
        """Undo the standardization: return inputs in the source's own units."""
        return self.standardizer.raw(x)

    def state_dict(self) -> dict[str, Any]:
        """Return what was fitted on the training samples, and the classes, as plain values."""
        if not self._ready:
            return dict(self._given)
        fields = ("target_mean", "target_scale", "class_counts")
        known = {name: getattr(self.info, name) for name in fields}
        return {
            "task": self.info.task,
            "input_shape": list(self.info.input_shape),
            "num_outputs": self.info.num_outputs,
            "class_names": list(self.info.class_names or ()),
            "class_type": self.info.class_type,
            **{name: list(numbers) for name, numbers in known.items() if numbers is not None},
            "standardizer": self.standardizer.state_dict(),
            "encoder": self._encoder_state,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Use what another run fitted; data already prepared otherwise is prepared again."""
        if self._ready and _states_agree(self.state_dict(), state_dict):
            return
        self._given, self._ready = dict(state_dict), False

    # --- preparing ----------------------------------------------------------------------------

    def _load_samples(self) -> Samples:
        samples = self.source
        if not isinstance(samples, Samples):
            # what a model was trained on stays what it is, whatever new targets look like
            suited = self.suited
            if self._given.get("task"):
                suited = (self._given["task"],)
            known = {"seed": self.seed, "suited": suited, "expected": self._expect_samples()}
            samples = _call_source(samples, **known, aside=list(filter(None, [self.rule.column])))
        self.notes = list(samples.notes)
        get_task(samples.task).check_label_noise(self.label_noise)
        if "class_names" not in self._given:
            return samples
        samples = _renumber_classes(samples, self._given["class_names"] or None)
        return replace(samples, class_type=self._given.get("class_type", "text"))

    def _expect_samples(self) -> Expected | None:
        """Say what a run that has been trained knows of its samples."""
        if "num_outputs" in self._given:
            facts = {key: self._given[key] for key in ("task", "num_outputs")}
            names = self._given.get("class_names") or ()
            parts = (self._given.get("encoder") or {}).get("columns", [])
            facts |= {"classes": names, "columns": [part["name"] for part in parts]}
            self.expected = Expected(**facts, may_lack_targets=self.predicting)
        return self.expected

    def _split_samples(self, samples: Samples) -> dict[str, _Part]:
        """Return the raw samples of each split; those in memory share the source's tensor."""
        if self.test_size == "all":
            self._check_test_only(samples)
            every = {"test": torch.arange(len(samples.y))}
            self._group_rows(samples, every)
            self._weigh_rows(samples, every)
            return {"test": _Part(samples.x, samples.y)}
        rows = self._draw_rows(samples)._asdict()
        self._group_rows(samples, rows)
        self._weigh_rows(samples, rows)
        parts = {
            name: _Part(samples.x, samples.y[r], r) for name, r in rows.items() if r is not None
        }
        if samples.test is not None:
            parts["test"] = _Part(*samples.test)
        return parts

    def _check_test_only(self, samples: Samples) -> None:
        """Refuse ``data.test=all`` beside a test set, or where nothing was fitted."""
        if samples.test is not None:
            raise ConfigError("data.test=all: this data has its own test set; set data.test=null")
        if not self._given and (samples.encoder is not None or self.standardize != "none"):
            raise ConfigError(
                "data.test=all leaves nothing to train on: it is for evaluating a finished run"
            )

    def _draw_rows(self, samples: Samples) -> Rows:
        """Draw the rows of each split; ``test`` is None where the source has a test set."""
        labels = get_task(samples.task).strata(samples.y)
        if labels is None or not self.stratify:
            labels = torch.zeros(1, dtype=torch.long).expand(len(samples.y))
        test = self.test_size if samples.test is None else None
        if isinstance(test, str):
            raise ConfigError(f"data.test is '{test}': give a fraction, a number, null or all")
        if samples.last_val is None:
            rows = self._split_by_rule(samples, labels, test)
        elif self.rule.kind != "random":
            raise ConfigError(
                f"data.split={self.rule.kind}:{self.rule.column}: this data has its own splits"
            )
        else:
            order = torch.arange(len(samples.y))
            rows = Rows(order[: -samples.last_val], order[-samples.last_val :], None)
        if self.num_train_asked is None:
            return rows
        # a stream of its own, so that fewer samples leave the other splits as they are
        draw = named_generator(self.seed, "num_train")
        chosen = choose_subset(labels[rows.train], self.num_train_asked, draw)
        return rows._replace(train=rows.train[chosen])

    def _split_by_rule(self, samples: Samples, labels: Tensor, test: float | None) -> Rows:
        """Draw the splits as ``split`` says."""
        kind, column = self.rule
        if self.folds is not None:
            return self._split_folds(samples, labels)
        draw, val, n = named_generator(self.seed, "split"), self.val_size, len(labels)
        if kind == "random":
            return partition_rows(labels, val, test, draw, samples.class_names)
        values = self._read_aside(samples, column, f"data.split={kind}:{column}")
        if kind == "group":
            rows = split_groups(number_groups(values), labels, val, test, draw, column)
        elif kind == "time":
            rows = split_in_time(read_times(values, column), val, test, column)
        else:
            named = split_by_name(values, column)
            held_out = named.get("test")
            if held_out is not None and samples.test is not None:
                raise ConfigError(
                    f"data.split=fixed:{column}: it names test rows, and this data has a test set"
                )
            train = named["train"]
            if "val" in named:
                rows = Rows(train, named["val"], held_out)
            else:
                inner = partition_rows(labels[train], val, None, draw, samples.class_names)
                rows = Rows(train[inner.train], train[inner.val], held_out)
        sizes = [f"{len(r)} {n}" for n, r in rows._asdict().items() if r is not None]
        self.notes.append(f"data.split={kind}:{column} of {n} samples: {', '.join(sizes)}")
        return rows

    def _split_folds(self, samples: Samples, labels: Tensor) -> Rows:
        """Test one fold, and split the others once more, into training and validation."""
        assert self.folds is not None
        if samples.test is not None:
            raise ConfigError(
                f"data.folds={self.folds}: this data has its own test set, which folds would leave "
                "out: set data.folds=null"
            )
        (kind, column), val, folds = self.rule, self.val_size, self.folds
        # the same folds whichever of them is tested
        draw = named_generator(self.seed, "folds")
        inner = named_generator(self.seed, "split", self.fold)
        if kind == "fixed":
            raise ConfigError(f"data.split=fixed:{column} has no folds: set data.folds=null")
        if kind == "random":
            fold = deal_folds(labels, folds, draw)
            rest = torch.nonzero(fold != self.fold).flatten()
            rows = partition_rows(labels[rest], val, None, inner, samples.class_names)
        else:
            values = self._read_aside(samples, column, f"data.split={kind}:{column}")
            if kind == "group":
                groups = number_groups(values)
                fold = deal_groups(groups, labels, folds, draw, column)
                rest = torch.nonzero(fold != self.fold).flatten()
                own = groups[rest].unique(return_inverse=True)[1]
                rows = split_groups(own, labels[rest], val, None, inner, column)
            else:
                times = read_times(values, column)
                moments = number_groups(times)
                counts = torch.bincount(moments)
                # one block more than folds, as the first has no past to train on
                sizes = [round(len(moments) / (folds + 1))] * folds
                fold = cut_groups(counts, sizes, column)[moments] - 1
                rest = torch.nonzero(fold < self.fold).flatten()
                rows = split_in_time(times[rest.numpy()], val, None, column)
        tested = torch.nonzero(fold == self.fold).flatten()
        self.notes.append(
            f"fold {self.fold} of {folds} is tested: {len(tested)} of {len(labels)} samples"
        )
        return Rows(rest[rows.train], rest[rows.val], tested)

    def _read_aside(self, samples: Samples, column: str, key: str) -> Any:
        """Return a column [n] that the source was asked to read aside."""
        if column not in samples.asides:
            raise ConfigError(
                f"{key}: this source reads no such column; data=table, data=arrays and data=hub "
                "do, and so does a DataFrame given from Python with data.source.target=COLUMN"
            )
        return check_column(samples.asides[column], key, column)

    def _group_rows(self, samples: Samples, rows: Mapping[str, Tensor | None]) -> None:
        """Number the groups of each split's samples, by which their errors are clustered."""
        self.groups = {}
        if self.rule.kind != "group":
            return
        column = self.rule.column
        if self.test_size == "all" and column not in samples.asides:
            return  # other samples, which nobody need have grouped
        values = self._read_aside(samples, column, f"data.split=group:{column}")
        numbers = number_groups(values)
        for name, own in rows.items():
            if own is not None:
                self.groups[name] = numbers[own].unique(return_inverse=True)[1]
        if samples.test is None:
            return
        if column not in samples.test_asides:
            self.notes.append(
                f"data.split=group:{column}: the test set has no such column, so its errors are "
                "those of independent samples"
            )
            return
        tested = check_column(samples.test_asides[column], f"data.split=group:{column}", column)
        self.groups["test"] = number_groups(tested)
        shared = set(map(str, values)) & set(map(str, tested))
        if shared:
            self.notes.append(
                f"data.split=group:{column}: {len(shared)} groups of the data's own test set are "
                f"trained on too, such as '{min(shared)}'"
            )

    def _weigh_rows(self, samples: Samples, rows: Mapping[str, Tensor | None]) -> None:
        """Read the weights of each split's samples; those of training have mean 1."""
        self.weights = {}
        if samples.weights is None:
            return
        for name, own in rows.items():
            if own is not None:
                self.weights[name] = samples.weights[own]
        if samples.test is not None and samples.test_weights is not None:
            self.weights["test"] = samples.test_weights
        for name, weights in self.weights.items():
            if not float(weights.sum()) > 0:
                raise ConfigError(f"data.source.weight: all weights of the {name} split are 0")
        if "train" in self.weights:
            self.weights["train"] = self.weights["train"] / self.weights["train"].mean()

    def _hold_inputs(self, parts: dict[str, _Part]) -> None:
        """Decide whether samples are held in memory, and read those that are held into tensors."""
        self._held = bool(self.in_memory)
        if self.in_memory == "auto":
            self._held = sum(part.count_bytes() for part in parts.values()) <= MEMORY
        for name, part in parts.items():
            if self._held and not isinstance(part.x, Tensor | TokenRows):
                parts[name] = _Part(part.join_inputs(), part.y)

    def _encode_columns(self, samples: Samples, parts: dict[str, _Part]) -> None:
        """Turn a table's columns into features, fitted on the training rows."""
        encoder = samples.encoder
        if encoder is None:
            return
        if self._given.get("encoder"):
            encoder.load_state_dict(self._given["encoder"])
        else:
            rows = parts["train"].join_inputs()
            encoder.fit(rows)
            self.notes += encoder.describe_fit(rows)
        for name, part in parts.items():
            rows = part.join_inputs()
            self.notes += encoder.describe_unseen(rows, name)
            parts[name] = _Part(encoder(rows), part.y)
        self._encoder_state = encoder.state_dict()

    def _pack_documents(self, packer: Packer, parts: Mapping[str, _Part]) -> dict[str, _Part]:
        """Cut documents into sequences, by a tokenizer fitted to those of the training split."""
        if self._given.get("encoder"):
            packer.load_state_dict(self._given["encoder"])
        elif "train" in parts:
            packer.fit(self._list_rows(parts["train"]))
        else:
            raise ConfigError(
                "data.test=all leaves no text to fit a tokenizer to: it is for evaluating a run"
            )
        packer.pack({name: self._list_rows(part) for name, part in parts.items()})
        self.notes += packer.notes
        self._encoder_state = packer.state_dict()
        # from here on a sequence is a sample, and its places belong to documents
        self.packer, packed = packer, dict[str, _Part]()
        self.identities = {name: RowNames(rows) for name, rows in packer.rows.items()}
        for name, rows in packer.rows.items():
            if rows.is_mapped:
                packed[name] = _Part(rows, TokenTargets(rows))  # type: ignore[arg-type]
                self.groups[name] = TokenOwners(rows)
            else:
                x, y, self.groups[name] = rows.read_all()
                packed[name] = _Part(x, y)
        if self.workers and any(rows.is_mapped for rows in packer.rows.values()):
            self.notes.append(
                f"data.workers={self.workers}: no process reads ahead, as tokens are looked up in "
                "a file that is mapped into memory"
            )
        return packed

    @staticmethod
    def _list_rows(part: _Part) -> Tensor:
        return torch.arange(len(part.y)) if part.rows is None else part.rows

    def count_token_bytes(self) -> list[int] | None:
        """Return how many bytes each token stands for; None where tokens are none of texts.

        Before the data are prepared, nobody knows of any.
        """
        if not self._ready:
            return []
        return None if self.packer is None else self.packer.tokenizer.count_bytes()

    def _check_given(self) -> None:
        """Refuse data of another task or size than those that a run was fitted to."""
        for key in ("task", "input_shape", "num_outputs"):
            mine, theirs = getattr(self.info, key), self._given.get(key)
            if isinstance(theirs, list):
                theirs = tuple(theirs)  # as checkpoints hold shapes
            if theirs is not None and mine != theirs:
                raise ConfigError(
                    f"data: the model was trained on data with {key} {theirs}, this one has {mine}"
                )

    def _add_label_noise(self, parts: dict[str, _Part]) -> None:
        if not self.label_noise or "train" not in parts:
            return
        part, task = parts["train"], get_task(self.info.task)
        draw = named_generator(self.seed, "label_noise")
        y = task.add_label_noise(part.y, self.label_noise, self.info.num_outputs, draw)
        parts["train"] = part._replace(y=y)
        if y.is_floating_point():  # quantities, and not classes
            self.notes.append(
                f"data.label_noise={self.label_noise:g} moves training targets alone: the training "
                "risk is of those, so that the gap may be negative"
            )

    def _fit_standardizer(self, parts: dict[str, _Part]) -> None:
        """Fit the standardizer on the training inputs, or take the one that was given.

        Raises:
            ConfigError: it was asked for, and inputs are tokens.
        """
        if "standardizer" in self._given:
            self.standardizer = Standardizer.from_state(self._given["standardizer"])
        elif get_task(self.info.task).integer_inputs:
            # nobody need have asked for a default
            if self.standardize not in ("none", self.default_kind):
                raise ConfigError(
                    f"data.standardize={self.standardize} does nothing, as inputs are tokens, "
                    "whose mean says nothing: set data.standardize=none"
                )
        elif self.standardize != "none":
            chunks = self._read_chunks(parts["train"])
            self.standardizer = Standardizer.fit(self.standardize, chunks)

    def _check_quantities(self, parts: dict[str, _Part]) -> None:
        """Refuse quantities that a precision does not hold, and tell of those it hardly does."""
        if not get_task(self.info.task).scales_targets or self._given or "train" not in parts:
            return
        keywords = getattr(self.source, "keywords", {})
        names = name_targets(keywords, self.info.num_outputs)
        for split, part in parts.items():
            check_range(part.y, names, self.identities[split]["row"], self.single)
        self.notes += describe_quantities(parts["train"].y, names, self.single)

    def _fit_targets(self, parts: dict[str, _Part]) -> None:
        """Find mean and scale of the training targets, or take those that a run was given."""
        if not get_task(self.info.task).scales_targets or not self.standardize_target:
            return
        mean, scale = self._given.get("target_mean"), self._given.get("target_scale")
        # a run of its own scale, or of none, is measured as it was trained
        if not self._given:
            fitted = Standardizer.fit("feature", [parts["train"].y])
            assert fitted.mean is not None and fitted.scale is not None
            mean, scale = fitted.mean.tolist(), fitted.scale.tolist()
        self.info = self.info._replace(target_mean=mean, target_scale=scale)

    def _count_classes(self, parts: dict[str, _Part]) -> None:
        """Count the training samples of each class, and tell of classes that are rare."""
        if not get_task(self.info.task).has_classes:
            return
        counts = self._given.get("class_counts")
        if "train" in parts and not self._given:
            counts = torch.bincount(parts["train"].y, minlength=self.info.num_outputs).tolist()
            self.notes += describe_alike(self.info.class_names)
            self.notes += describe_imbalance(counts, self.info.class_names)
        self.info = self.info._replace(class_counts=counts)

    def _read_chunks(self, part: _Part) -> Iterator[Tensor]:
        """Yield raw inputs [m, *shape] in their order."""
        x = part.x
        if not isinstance(x, Tensor):
            reader = LoaderSplit(part.select_inputs(), part.y, Standardizer(), self.workers)
            return (b.x for b in reader.batches(torch.arange(len(part.y)).split(256)))
        if part.rows is None:
            return iter(x.split(_chunk_size(x)))
        return _gather_chunks(x, part.rows)

    def _build_splits(self, parts: dict[str, _Part]) -> None:
        # a gradient on the whole training set would standardize it again at every step
        large = sum(part.count_bytes() for part in parts.values()) > COPIED
        keep_source = large and self.batch_size != "full"
        for name in ("train", "val", "test"):
            split: Split | None = None
            part = parts.get(name)
            if part is not None and self._held and isinstance(part.x, Tensor):
                fitted = self.standardizer if self.standardizer.mean is not None else None
                split = TensorSplit(part.x, part.y, part.rows, fitted, keep_source)
            elif part is not None and isinstance(part.x, TokenRows):
                split = TokenSplit(part.x)
            elif part is not None:
                split = LoaderSplit(part.select_inputs(), part.y, self.standardizer, self.workers)
            # by their chances or by their weights: both would count twice
            weighs = name == "train" and name in self.weights and self.sampler != "weighted"
            if split is not None and weighs:
                split = WeightedSplit(split, self.weights[name])
            setattr(self, name, split)


def _chunk_size(x: Tensor) -> int:
    return max(1, min(CHUNK, CHUNK_NUMBERS // max(1, x[:1].numel())))


def _gather_chunks(x: Tensor, rows: Tensor) -> Iterator[Tensor]:
    """Yield rows as float64 chunks [m, *shape], each in the place of the last."""
    # one buffer, which goes back to the system: blocks freed in turns would stay with malloc
    size = _chunk_size(x)
    buffer = torch.empty((min(size, len(rows)), *x.shape[1:]), dtype=torch.float64)
    for chunk in rows.split(size):
        for index in torch.arange(len(chunk)).split(256):
            buffer[index[0] : index[-1] + 1] = x.index_select(0, chunk[index])
        yield buffer[: len(chunk)]


class NoData(RunData):
    """One empty sample to train on and the same to validate on, so that J(w) is a function of w.

    Nothing is drawn: training and validation risk are both the function's value, known exactly.

    Args:
        batch_size: a number, or ``full``; either way an epoch is one step.

    Raises:
        ConfigError: ``batch_size`` is neither.

    >>> data = NoData()
    >>> data.prepare()
    >>> data.info.task, data.num_train, data.train.x.shape, data.test
    ('function', 1, torch.Size([1, 0]), None)
    """

    def __init__(self, batch_size: int | str = "full") -> None:
        super().__init__(_no_source, batch_size, standardize="none")

    def prepare(self) -> None:
        """Lay out the sample, once."""
        if self._ready:
            return
        self.info = DataInfo("function", (0,), 1, None)
        self._check_given()
        for name in ("train", "val"):
            setattr(self, name, TensorSplit(torch.zeros(1, 0), torch.zeros(1, 1)))
        self._ready = True


def _no_source() -> NoReturn:
    raise AssertionError("there is no data to load")


class _Part(NamedTuple):
    """A split of a source's samples: its rows of the inputs, or all of them, and its targets."""

    x: Tensor | Inputs
    y: Tensor
    rows: Tensor | None = None

    def select_inputs(self) -> Tensor | Inputs:
        """Return the split's own inputs."""
        if self.rows is None:
            return self.x
        if isinstance(self.x, Tensor):
            return self.x.index_select(0, self.rows)
        return InputRows(self.x, self.rows)

    def join_inputs(self) -> Tensor:
        """Return the split's own inputs in one tensor."""
        return stack_inputs(self.select_inputs())

    def count_bytes(self) -> int:
        """Return the bytes of the inputs in single precision."""
        return 4 * len(self.y) * math.prod(sample_shape(self.x))


def identify_rows(samples: Samples, name: str, part: _Part) -> dict[str, Any]:
    """Return what tells the samples of a split apart: at least their rows in the source.

    Args:
        samples: of the source.
        name: of the split.
        part: its samples.
    """
    import numpy as np

    # a test set of the source's own has rows of its own
    if name == "test" and samples.test is not None:
        return {"row": np.arange(len(part.y))}
    known = {"row": np.arange(len(samples.y)), **samples.identities}
    rows = slice(None) if part.rows is None else part.rows.numpy()
    return {key: np.asarray(values)[rows] for key, values in known.items()}


def _call_source(source: Callable[..., Samples], **known: Any) -> Samples:
    """Call a source, with what the run knows where it takes that and has none of its own."""
    # those of a partial, as which Hydra builds a source
    given = getattr(source, "keywords", {})
    takes = inspect.signature(source).parameters
    try:
        samples = source(**{k: v for k, v in known.items() if k in takes and given.get(k) is None})
    except FAULTS as error:
        # of ours that fails, all of the traceback is wanted
        if isinstance(error, UserError) or not list_own_lines(error):
            raise
        raise ConfigError(f"data.source: {describe_fault(error)}") from error
    if not isinstance(samples, Samples):
        name = getattr(getattr(source, "func", source), "__name__", "it")
        raise ConfigError(
            f"data.source: {name} returns a {type(samples).__name__}, and a source returns "
            "truerisk.data.Samples(x, y, task); a Dataset is given from Python, as in "
            "truerisk.train(data=dataset)"
        )
    return samples


def _describe_data(samples: Samples, x: Tensor | Inputs) -> DataInfo:
    names = None if samples.class_names is None else tuple(samples.class_names)
    return DataInfo(
        samples.task, sample_shape(x), samples.num_outputs, names, class_type=samples.class_type
    )


def _renumber_classes(samples: Samples, names: list[str] | None) -> Samples:
    """Renumber the labels of samples to the order of the class names given."""
    mine = samples.class_names
    if names is None or mine is None or list(mine) == names:
        return samples
    task = get_task(samples.task)
    seen = [mine[k] for k in task.find_classes(samples.y)]
    strange = next((name for name in seen if name not in names), None)
    if strange is not None:
        raise ConfigError(
            f"data.source: class '{strange}' is not among the classes the model was trained on: "
            f"{', '.join(names)}"
        )
    y = task.renumber_targets(samples.y, mine, names)
    test = samples.test
    if test is not None:
        test = test[0], task.renumber_targets(test[1], mine, names)
    return replace(samples, y=y, test=test, class_names=names)


def _states_agree(a: Any, b: Any) -> bool:
    """Tell whether two nested states hold the same."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        if not isinstance(b, Mapping) or a.keys() != b.keys():
            return False
        return all(_states_agree(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_states_agree, a, b))
    return bool(a == b)
