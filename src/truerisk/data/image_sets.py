"""Public sets of images: from the Hugging Face hub, or from their authors' own files."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, first_line, suggest
from truerisk.data.hub import hub
from truerisk.data.samples import Expected, Samples
from truerisk.data.source_files import find_path

CIFAR_SIDE = 32
CIFAR10_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
PUBLISHED = {"cifar": (50_000, 10_000), "mnist": (60_000, 10_000)}
"""Images in the training and the test set, as they are published."""
UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)
"""What Python raises where packed files are cut off or spoilt."""


def cifar10(
    path: str | None = None,
    revision: str | None = None,
    cache: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read CIFAR-10: 60,000 images (3, 32, 32) in [0, 1] of ten classes (Krizhevsky 2009).

    Args:
        path: folder of the binary version (``data_batch_1.bin`` … ``test_batch.bin``), or its
            ``.tar.gz``; None for the Hugging Face hub.
        revision: of the data set on the hub.
        cache: folder of what is downloaded.
        suited: tasks that the loss is for.
        expected: what a run that has been trained knows of the samples.
        aside: columns that splits and weights go by, on the hub.

    Raises:
        ConfigError: a file is missing, cut off, or holds something else.
    """
    if path is None:
        known = {"revision": revision, "cache": cache, "suited": suited, "expected": expected}
        return _ask_hub("uoft-cs/cifar10", "img", "label", aside=aside, **known)
    files = _open_files(path, "the binary version of CIFAR-10")
    train = [_read_cifar(files, f"data_batch_{i}.bin", (10,), 0) for i in range(1, 6)]
    test = _read_cifar(files, "test_batch.bin", (10,), 0)
    # copies of the batches often come without the file of names
    names = _read_names(files, "batches.meta.txt", 10) or CIFAR10_NAMES
    return _join_parts(train, test, names, "cifar")


def cifar100(
    path: str | None = None,
    labels: str = "fine",
    revision: str | None = None,
    cache: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read CIFAR-100: 60,000 images (3, 32, 32) in [0, 1] of 100 classes (Krizhevsky 2009).

    Args:
        path: folder of the binary version (``train.bin``, ``test.bin``), or its ``.tar.gz``; None
            for the Hugging Face hub.
        labels: ``fine`` for the 100 classes, ``coarse`` for the 20 that they belong to.
        revision: of the data set on the hub.
        cache: folder of what is downloaded.
        suited: tasks that the loss is for.
        expected: what a run that has been trained knows of the samples.
        aside: columns that splits and weights go by, on the hub.

    Raises:
        ConfigError: a file is missing, cut off, or holds something else; no such labels.
    """
    counts = {"coarse": 20, "fine": 100}
    if labels not in counts:
        raise ConfigError(f"data.source.labels is '{labels}'; {suggest(labels, counts)}")
    if path is None:
        known = {"revision": revision, "cache": cache, "suited": suited, "expected": expected}
        return _ask_hub("uoft-cs/cifar100", "img", f"{labels}_label", aside=aside, **known)
    files = _open_files(path, "the binary version of CIFAR-100")
    # both labels stand before the pixels, the coarse one first
    column = list(counts).index(labels)
    train, test = (
        _read_cifar(files, name, tuple(counts.values()), column)
        for name in ("train.bin", "test.bin")
    )
    names = _read_names(files, f"{labels}_label_names.txt", counts[labels])
    return _join_parts([train], test, names or range(counts[labels]), "cifar")


def mnist(
    path: str | None = None,
    revision: str | None = None,
    cache: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read MNIST: 70,000 digits (1, 28, 28) in [0, 1] (LeCun et al. 1998).

    Args:
        path: folder of the idx files (``train-images-idx3-ubyte`` …, perhaps ``.gz``); None for the
            Hugging Face hub.
        revision: of the data set on the hub.
        cache: folder of what is downloaded.
        suited: tasks that the loss is for.
        expected: what a run that has been trained knows of the samples.
        aside: columns that splits and weights go by, on the hub.

    Raises:
        ConfigError: a file is missing, cut off, or holds something else.
    """
    if path is None:
        known = {"revision": revision, "cache": cache, "suited": suited, "expected": expected}
        return _ask_hub("ylecun/mnist", "image", "label", aside=aside, **known)
    return _read_idx_set(path, "MNIST", range(10))


def fashion_mnist(
    path: str | None = None,
    revision: str | None = None,
    cache: str | None = None,
    suited: Sequence[str] = (),
    expected: Expected | None = None,
    aside: Sequence[str] = (),
) -> Samples:
    """Read Fashion-MNIST: 70,000 pieces of clothing (1, 28, 28) in [0, 1] (Xiao et al. 2017).

    Args:
        path: folder of the idx files (``train-images-idx3-ubyte`` …, perhaps ``.gz``); None for the
            Hugging Face hub.
        revision: of the data set on the hub.
        cache: folder of what is downloaded.
        suited: tasks that the loss is for.
        expected: what a run that has been trained knows of the samples.
        aside: columns that splits and weights go by, on the hub.

    Raises:
        ConfigError: a file is missing, cut off, or holds something else.
    """
    if path is None:
        known = {"revision": revision, "cache": cache, "suited": suited, "expected": expected}
        return _ask_hub("zalando-datasets/fashion_mnist", "image", "label", aside=aside, **known)
    return _read_idx_set(path, "Fashion-MNIST", FASHION_NAMES)


def _ask_hub(name: str, x: str, y: str, **known: Any) -> Samples:
    try:
        return hub(name, x=x, y=y, **known)
    except ConfigError as error:
        # what is wrong with the set itself has nothing to do with where it comes from
        if name not in str(error):
            raise
        raise ConfigError(
            f"{error}; or set data.source.path to a folder of the files that its authors give out"
        ) from None


class PackedFiles(NamedTuple):
    """The files of a set: in a folder or in a folder of it, or in an archive.

    Attributes:
        path: of the folder or the archive.
        what: they are, for messages.
    """

    path: Path
    what: str

    def read(self, name: str, required: bool = True) -> bytes | None:
        """Read a file of that name, or with ``.gz`` behind it.

        Args:
            name: of the file.
            required: whether it must be there.

        Raises:
            ConfigError: it is not there, or cannot be unpacked.
        """
        try:
            if self.path.is_file():
                return self._find_member(name, required)
            file = self._find_file(name, required)
            if file is None:
                return None
            # all of it, as the checksum comes last
            packed = file.read_bytes()
            return gzip.decompress(packed) if file.suffix == ".gz" else packed
        except UNREADABLE as error:
            raise damage_error(
                self.path, name, f"it cannot be read ({first_line(error)})"
            ) from None

    def _find_file(self, name: str, required: bool) -> Path | None:
        # what is unpacked into a folder often brings one of its own
        folders = [self.path, *sorted(p for p in self.path.iterdir() if p.is_dir())]
        found = [f / n for f in folders for n in (name, f"{name}.gz") if (f / n).is_file()]
        if not found and required:
            raise self._lacks(name, [p.name for p in self.path.iterdir()])
        return next(iter(found), None)

    def _find_member(self, name: str, required: bool) -> bytes | None:
        with tarfile.open(self.path) as archive:
            # by their bare names, as all lies below a folder of the archive's own
            members = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}
            # the checksum comes last, behind all members
            if archive.fileobj is not None:
                archive.fileobj.read(-1)
            if name not in members:
                if required:
                    raise self._lacks(name, list(members))
                return None
            stream = archive.extractfile(members[name])
            return stream.read() if stream is not None else None

    def _lacks(self, name: str, present: list[str]) -> ConfigError:
        # the batches beside it have their own numbers: none of them is this one misspelled
        told = "fetch it again"
        if strip_number(name) not in map(strip_number, present):
            told = suggest(name, present)
        return ConfigError(
            f"data.source.path: {self.path} has no file {name}, as {self.what} has; {told}"
        )


def strip_number(name: str) -> str:
    """Return the name of a file without the number that tells it from its neighbours.

    >>> strip_number("data_batch_2.bin"), strip_number("test_batch.bin.gz")
    ('data_batch_.bin', 'test_batch.bin')
    """
    return re.sub(r"\d+(?=\.)", "", name.removesuffix(".gz"))


def damage_error(path: Path, name: str, fault: str) -> ConfigError:
    """Make the error for a file that is not what it should be.

    Args:
        path: of the folder or archive.
        name: of the file in it.
        fault: what is wrong, as a clause.
    """
    return ConfigError(
        f"data.source.path: {name} in {path} is damaged, cut off or another file: {fault}; "
        "fetch it again"
    )


def _open_files(path: str, what: str) -> PackedFiles:
    return PackedFiles(find_path(path, "data.source.path", f"a folder of {what}"), what)


Part = tuple[np.ndarray, np.ndarray]
"""Images [n, c, h, w] in bytes, and their labels [n]."""


def _read_cifar(files: PackedFiles, name: str, counts: tuple[int, ...], column: int) -> Part:
    """Read a file of records: a byte a label, then 32 rows of red, of green and of blue.

    Args:
        files: of the set.
        name: of the file.
        counts: how many classes each label is of.
        column: the label to learn.
    """
    content = files.read(name) or b""
    pixels = 3 * CIFAR_SIDE**2
    size = len(counts) + pixels
    if not content or len(content) % size:
        fault = f"it has {len(content)} bytes, which are no records of {size}"
        raise damage_error(files.path, name, fault)
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
    # where records have slipped, pixels stand in the place of labels
    for place, count in enumerate(counts):
        _check_labels(records[:, place], count, files.path, name)
    x = records[:, len(counts) :].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    return x, records[:, column]


def _check_labels(labels: np.ndarray, count: int, path: Path, name: str) -> None:
    if len(labels) and labels.max() >= count:
        first = int(np.argmax(labels >= count))
        fault = f"label {labels[first]} of image {first + 1} is none of {count} classes"
        raise damage_error(path, name, fault)


def scale_bytes(pixels: np.ndarray) -> Tensor:
    """Return bytes as float32 in [0, 1], written once: a set of them is gigabytes."""
    scaled = np.empty(pixels.shape, dtype="float32")
    np.divide(pixels, np.float32(255), out=scaled)
    return torch.from_numpy(scaled)


def _read_idx_set(path: str, title: str, names: Sequence[Any]) -> Samples:
    files = _open_files(path, f"the idx files of {title}")
    parts = []
    # t10k: the ten thousand of the test
    for split in ("train", "t10k"):
        x = _read_idx(files, f"{split}-images-idx3-ubyte", 3)
        y = _read_idx(files, f"{split}-labels-idx1-ubyte", 1)
        if len(x) != len(y):
            fault = f"it has {len(y)} labels for {len(x)} images"
            raise damage_error(files.path, f"{split}-labels-idx1-ubyte", fault)
        _check_labels(y, len(names), files.path, f"{split}-labels-idx1-ubyte")
        parts.append((x[:, None], y))
    return _join_parts(parts[:1], parts[1], names, "mnist")


def _read_idx(files: PackedFiles, name: str, dims: int) -> np.ndarray:
    """Read an idx file of bytes: two zeros, the type 8, the number of sides, the sides, the bytes.

    Args:
        files: of the set.
        name: of the file.
        dims: how many sides it should have.
    """
    content = files.read(name) or b""
    header = 4 + 4 * dims
    if len(content) < header or content[:4] != bytes([0, 0, 8, dims]):
        fault = f"it does not begin as an idx file of bytes with {dims} sides does"
        raise damage_error(files.path, name, fault)
    sides = tuple(np.frombuffer(content[4:header], dtype=">i4").tolist())
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    # in Python's own numbers: what a spoilt header tells of may be beyond 64 bits
    if min(sides) < 1 or len(values) != np.prod(sides, dtype=object):
        told = " x ".join(map(str, sides))
        raise damage_error(files.path, name, f"it tells of {told} bytes and has {len(values)}")
    return values.reshape(sides)


def _read_names(files: PackedFiles, name: str, count: int) -> list[str]:
    """Read the names of classes, a line each; none where the file is not there.

    Args:
        files: of the set.
        name: of the file.
        count: how many names it should hold.
    """
    content = files.read(name, required=False)
    if content is None:
        return []
    # the authors' files end in blank lines
    lines = content.decode("utf-8", errors="replace").split("\n")
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != count:
        raise damage_error(files.path, name, f"it has {len(names)} names for {count} classes")
    return names


def _join_parts(train: Sequence[Part], test: Part, names: Sequence[Any], kind: str) -> Samples:
    """Join the files of the training set, and tell where images are missing.

    Args:
        train: its files.
        test: the test set.
        names: of the classes.
        kind: whose published numbers of images hold.
    """
    # still in bytes, a quarter of what the numbers will take
    x, y = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    if x.shape[1:] != test[0].shape[1:]:
        raise ConfigError(
            f"data.source.path: training images are of shape {list(x.shape[1:])}, and those of the "
            f"test set of {list(test[0].shape[1:])}: these files are not of one set"
        )
    notes = []
    if (len(x), len(test[0])) != PUBLISHED[kind]:
        counts = "{:,} and {:,}".format(*PUBLISHED[kind])
        notes.append(
            f"{len(x):,} training and {len(test[0]):,} test images; published are {counts}"
        )
    pairs = [(scale_bytes(a), torch.from_numpy(b.astype("int64"))) for a, b in ((x, y), test)]
    return Samples(*pairs[0], "classification", test=pairs[1], class_names=list(names), notes=notes)
