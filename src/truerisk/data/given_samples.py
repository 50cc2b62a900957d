"""Samples given from Python: tensors, datasets, or somebody's LightningDataModule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.errors import FAULTS, ConfigError, UserError, describe_fault
from truerisk.core.python_objects import hash_arrays, take_object
from truerisk.data.own_files import FRAME, check_widths, describe_inputs, read_inputs
from truerisk.data.samples import Samples
from truerisk.data.source_files import read_labels

if TYPE_CHECKING:
    from pandas import DataFrame

FORMS = (
    "(x, y), (x_train, y_train, x_val, y_val), the same with x_test, y_test, a Dataset, a pair or "
    "three of them, a LightningDataModule, or a DataFrame with data.source.target=COLUMN"
)
SPLITS = ("train", "val", "test")
Pair = tuple[Any, Any]


class GivenData(NamedTuple):
    """Samples as they were given: inputs and targets of one to three splits.

    Args:
        kind: the class they came in.
        splits: arrays (x, y) by ``train``, ``val`` and ``test``; ``train`` alone is split later.
        digest: of all of them.
    """

    kind: str
    splits: dict[str, Pair]
    digest: str

    @property
    def option(self) -> str:
        """The option whose keys they have beside their source's."""
        return "arrays"

    def describe(self, source: Mapping[str, Any]) -> dict[str, object]:
        """Return the node that stands for them in a configuration.

        Args:
            source: the node that was composed.
        """
        shapes = {name: [list(x.shape), list(y.shape)] for name, (x, y) in self.splits.items()}
        return {
            "_target_": "truerisk.data.given_samples.given_samples",
            "_partial_": True,
            "kind": self.kind,
            "shapes": shapes,
            "digest": self.digest,
            "task": source.get("task", "auto"),
        }


class GivenFrame(NamedTuple):
    """A table as it was given: a DataFrame, read as a file of it would be.

    Args:
        frame: its columns.
        digest: of all of them.
    """

    frame: DataFrame
    digest: str

    @property
    def option(self) -> str:
        """The option whose keys it has beside the path."""
        return "table"

    def describe(self, source: Mapping[str, Any]) -> dict[str, object]:
        """Return the node that stands for it in a configuration.

        Args:
            source: the node that was composed, with the target and the like.
        """
        return {**source, "path": f"{FRAME}{self.digest}"}


def read_data(data: Any, seed: int = 0) -> GivenData | GivenFrame:
    """Read samples that were given from Python, once.

    Args:
        data: tensors or arrays, datasets, a LightningDataModule, or a DataFrame.
        seed: of what datasets draw while they are read.

    Raises:
        ConfigError: it is none of these.
    """
    kind = type(data).__name__
    if kind == "DataFrame" and hasattr(data, "columns"):
        frame = data.reset_index(drop=True).rename(columns=str)
        arrays = [np.array(list(frame)), *(frame[name].astype(str).to_numpy(str) for name in frame)]
        return GivenFrame(frame, hash_arrays(arrays))
    with rng.fork_seeded(seed):
        if hasattr(data, "train_dataloader"):
            splits = read_data_module(data)
        elif isinstance(data, tuple | list) and data and all(map(is_dataset, data)):
            splits = [read_samples(one) for one in data]
            kind = "Datasets"
        elif isinstance(data, tuple | list) and len(data) in (2, 4, 6):
            for k, one in enumerate(data):
                if k % 2 == 0 and hasattr(one, "columns"):
                    check_frame(one)
            arrays = [to_array(one) for one in data]
            splits = list(zip(arrays[::2], arrays[1::2], strict=True))
            kind = "arrays"
        elif is_dataset(data):
            splits = [read_samples(data)]
        else:
            raise ConfigError(f"data is a {kind}: give {FORMS}")
    if len(splits) > len(SPLITS):
        raise ConfigError(f"data has {len(splits)} splits: give {FORMS}")
    named = dict(zip(SPLITS, splits, strict=False))
    for name, (x, y) in named.items():
        for one in (x, y):
            if not one.ndim and one.dtype == object:
                raise ConfigError(f"data holds a {type(one.item()).__name__}: give {FORMS}")
        if not x.ndim or not y.ndim:
            raise ConfigError(f"data: {name} has one number for samples: give a row a sample")
        if not len(x) or len(x) != len(y):
            raise ConfigError(f"data: {name} has {len(x)} inputs and {len(y)} targets")
    return GivenData(kind, named, hash_arrays(one for pair in splits for one in pair))


def is_dataset(data: Any) -> bool:
    """Tell whether something is a map-style dataset of pairs."""
    return isinstance(data, torch.utils.data.Dataset) and hasattr(data, "__len__")


def check_frame(frame: Any) -> None:
    """Refuse inputs in a DataFrame whose columns are not all of numbers.

    Args:
        frame: the inputs.

    Raises:
        ConfigError: a column holds texts, or has gaps.
    """
    from pandas.api.types import is_numeric_dtype

    for name in frame.columns:
        column = frame[name]
        what = ""
        if gaps := int(column.isna().sum()):
            what = f"has {gaps} gap{'s' * (gaps > 1)}"
        elif not is_numeric_dtype(column):
            what = f"holds {column.dtype}, such as {column.iloc[0]!r}"
        if what:
            raise ConfigError(
                f"data: column '{name}' of the inputs {what}, and a pair (x, y) is of numbers "
                "alone: give one DataFrame, as in data=x.assign(target=y) with "
                "data.source.target=target, whose texts are categories, and whose gaps "
                "data.source.missing fills"
            )


def to_array(values: Any) -> Any:
    """Return numbers or texts as an array on the CPU.

    Args:
        values: a tensor, an array, a table or a list.
    """
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
        if array.dtype == object and hasattr(values, "columns"):
            with suppress(TypeError, ValueError):  # truth values beside numbers
                return values.to_numpy(dtype="float64")
        return array
    except ValueError:  # lists of labels, of several lengths
        return np.asarray([None, *values], dtype=object)[1:]


def read_samples(dataset: Any) -> Pair:
    """Read all samples of a dataset: inputs [n, …] and targets [n, …].

    Args:
        dataset: of pairs (x, y).
    """
    kind, pairs = type(dataset).__name__, []
    for k in range(len(dataset)):
        with telling_faults(f"sample {k} of {kind} cannot be read"):
            sample = dataset[k]
        x, y = split_pair(sample, f"sample {k} of {kind}")
        pairs.append(([x], [y]))
    return join_batches(pairs, kind)


@contextmanager
def telling_faults(what: str) -> Iterator[None]:
    """Turn an error of somebody's data into one message that ends with their own lines.

    Args:
        what: has failed.
    """
    try:
        yield
    except UserError:
        raise
    except FAULTS as error:
        raise ConfigError(f"data: {what}: {describe_fault(error)}") from error


def split_pair(sample: Any, what: str) -> Pair:
    """Return the inputs and targets of a sample or a batch.

    Args:
        sample: as it was read.
        what: it is.

    Raises:
        ConfigError: it is no pair, or holds several inputs.
    """
    found = type(sample).__name__
    if isinstance(sample, Mapping):
        found += f" ({', '.join(map(str, sample))})"
    elif isinstance(sample, tuple | list):
        x = sample[0] if sample else None
        if len(sample) == 2 and not isinstance(x, Mapping):
            return sample[0], sample[1]
        found += f" of {len(sample)}"
        if isinstance(x, Mapping):
            found += f" whose inputs are a {type(x).__name__} ({', '.join(map(str, x))})"
    raise ConfigError(
        f"data: {what} is {found}, and a pair (x, y) is needed: join what else forward takes, "
        "such as a mask, to x in one tensor, and take it apart in forward"
    )


def join_batches(batches: Iterable[tuple[Any, Any]], kind: str) -> Pair:
    """Join batches into inputs [n, …] and targets [n, …].

    Args:
        batches: pairs (x, y).
        kind: what they are read from.

    Raises:
        ConfigError: there are none, or their shapes differ.
    """
    pairs = [(stack_values(x), stack_values(y)) for x, y in batches]
    if not pairs:
        raise ConfigError(f"data: {kind} has no samples")
    for k, name in enumerate(("inputs", "targets")):
        shapes = {pair[k].shape[1:]: pair[k].dtype for pair in pairs}
        if len(shapes) > 1:
            told = " and ".join(str(list(shape)) for shape in list(shapes)[:2])
            raise ConfigError(
                f"data: {kind} has {name} of shapes {told}: all need one, as by padding or cropping"
            )
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


def stack_values(values: Any) -> Any:
    """Return a batch as an array; a list is one value a sample.

    Args:
        values: a tensor, an array or a list.
    """
    if isinstance(values, list):
        return np.stack([to_array(value) for value in values])
    return to_array(values)


def read_data_module(module: Any) -> list[Pair]:
    """Read the splits of a LightningDataModule through its dataloaders.

    Args:
        module: whose hooks are called as a Trainer would call them.

    Raises:
        ConfigError: it has a test set without a validation set.
    """
    kind = type(module).__name__
    with telling_faults(f"{kind}.prepare_data fails"):
        module.prepare_data()
    found: dict[str, Pair] = {}
    for name, stage in zip(SPLITS, ("fit", "fit", "test"), strict=True):
        if name != "val":
            with telling_faults(f"{kind}.setup fails"):
                module.setup(stage)
        loader = read_loader(module, f"{name}_dataloader")
        if loader is not None:
            found[name] = read_loader_samples(loader)
    if "train" not in found:
        raise ConfigError(f"data: {kind} has no train_dataloader, which is to give a loader")
    if "val" not in found:
        if "test" in found:
            raise ConfigError("data has a test set and no validation set: give both, or neither")
        return [found["train"]]
    return list(found.values())


def read_loader(module: Any, name: str) -> Any:
    """Return one of a data module's dataloaders; None where it has none.

    Args:
        module: any.
        name: of the method.

    Raises:
        ConfigError: there are several.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        loader = getattr(module, name)()
    except (MisconfigurationException, NotImplementedError):
        return None
    except FAULTS as error:
        raise ConfigError(f"data: {name} fails: {describe_fault(error)}") from error
    if isinstance(loader, Sequence):
        if len(loader) > 1:
            raise ConfigError(f"data: {name} gives {len(loader)} loaders, where one can be read")
        loader = next(iter(loader), None)
    return loader


def read_loader_samples(loader: Any) -> Pair:
    """Read a dataloader's samples in the order of its dataset, where it has one.

    Args:
        loader: of pairs (x, y).
    """
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and is_dataset(dataset):
        # Not through the loader, which may shuffle them and leave some out.
        return read_samples(dataset)
    with telling_faults("a batch of the loader cannot be read"):
        batches = list(loader)
    return join_batches((split_pair(batch, "a batch") for batch in batches), "the loader")


def given_samples(
    kind: str,
    shapes: dict[str, Any],
    digest: str,
    task: str = "auto",
    suited: Sequence[str] = (),
) -> Samples:
    """Return the samples that a run was given from Python.

    Args:
        kind: the class they came in.
        shapes: of inputs and targets, by split.
        digest: of all of them.
        task: what is learned; ``auto`` as `truerisk.task.infer_task` says.
        suited: tasks that the loss is for, which ``auto`` goes by.

    Raises:
        ConfigError: they were not given again, or are no samples of the task.
    """
    given = take_object("data", digest, f"data ({kind})")
    pairs = [given.splits[name] for name in ("train", "val") if name in given.splits]
    y = np.concatenate([y for _, y in pairs])
    labels = read_labels(y, task, suited, None, "data")
    learned, notes = labels.task, labels.notes
    x = np.concatenate([x for x, _ in pairs])
    inputs = read_inputs(x, "x", learned.integer_inputs)
    notes += describe_inputs(x, "x", learned.integer_inputs)
    targets, names = learned.read_targets(y)
    test = None
    if "test" in given.splits:
        x_test, y_test = given.splits["test"]
        test_inputs = read_inputs(x_test, "x_test", learned.integer_inputs)
        check_widths(inputs, test_inputs, "x_test")
        test = (
            test_inputs,
            learned.read_targets(y_test, names)[0],
        )
    held_out = None
    if "val" in given.splits:
        held_out = len(given.splits["val"][1])
    return Samples(
        inputs, targets, learned.name, test=test, class_names=names, last_val=held_out, notes=notes
    )
