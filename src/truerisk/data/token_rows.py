"""Tokens of documents, one after another, cut into sequences of one length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from truerisk.core.atomic_files import replacing
from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.data.source_files import cache_folder
from truerisk.data.tokenizer import BOUNDARY

HELD = 64 * 2**20
"""Bytes of text up to which tokens are held in memory; those of more are a file in the cache."""
CHECKED = 2**24
"""Bytes of a file that its checksum is taken of at a time."""


class TokenStore(NamedTuple):
    """Tokens of all documents, each with the boundary before it.

    Args:
        tokens: int32, in memory or mapped from a file that all processes share.
        starts: where each document begins, and where the last one ends, int64 [n + 1]; mapped from
            a file where the tokens are.
    """

    tokens: np.ndarray
    starts: np.ndarray

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle files by their path: NumPy 2.4 would pickle all that is in them."""
        if not isinstance(self.tokens, np.memmap):
            return type(self), tuple(self)
        return open_store, (self.tokens.filename,)


def open_store(path: Path) -> TokenStore:
    """Map tokens, and where documents begin, from two files of one name.

    Args:
        path: of the tokens; the other file has the suffix ``.starts``.
    """
    starts = np.memmap(Path(path).with_suffix(".starts"), dtype="<i8", mode="r")
    return TokenStore(np.memmap(path, dtype="<i4", mode="r"), starts)


def encode_documents(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Put the boundary before the tokens of each document.

    Args:
        parts: tokens of each.
    """
    return (np.concatenate([[BOUNDARY], part]).astype(np.int32) for part in parts)


def hold_tokens(parts: Iterable[np.ndarray]) -> TokenStore:
    """Hold tokens in memory.

    Args:
        parts: of each document, with the boundary.
    """
    whole = list(parts)  # of HELD bytes at most
    starts = np.cumsum([0, *map(len, whole)])
    return TokenStore(np.concatenate(whole), starts)


def map_tokens(parts: Iterable[np.ndarray], key: str) -> TokenStore:
    """Map tokens from a file in the user's cache, which the first process writes.

    Where documents begin is a file too, and so are the checksums of both, as ``sha256sum --check``
    reads them: files that do not agree with those, as after a disk's fault, are written anew.

    Args:
        parts: of each document, with the boundary; read only where the file is to be written.
        key: what tells the file from others: a digest of the documents and the tokenizer.
    """
    path = cache_folder() / f"tokens-{key}.bin"
    starts, known = path.with_suffix(".starts"), path.with_suffix(".sha256")
    with suppress(OSError):
        if known.read_text() == _list_checksums(path, starts):
            return open_store(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # whole or not at all, as another process may read them meanwhile
    with (
        replacing(path, contended=True) as part,
        replacing(starts, contended=True) as other,
        part.open("wb") as file,
        other.open("wb") as ends,
    ):
        ends.write(bytes(8))
        for tokens in parts:
            file.write(tokens.astype("<i4").tobytes())
            ends.write((file.tell() // 4).to_bytes(8, "little"))
    with replacing(known, contended=True) as part:
        part.write_text(_list_checksums(path, starts))
    return open_store(path)


def _list_checksums(*paths: Path) -> str:
    return "".join(f"{checksum_file(path)}  {path.name}\n" for path in paths)


def checksum_file(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Args:
        path: of the file.
    """
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHECKED):
            found.update(piece)
    return found.hexdigest()


class TokenRows:
    """Sequences of ``context`` tokens out of some documents that stand one after another.

    A sequence may hold several documents, or a part of one. Its targets are the tokens one place
    on; what is left at the end, fewer than ``context`` tokens, is no sequence.

    Args:
        store: tokens of all documents.
        documents: numbers of those that are meant, int64 [d].
        context: T.
        split: its name, for messages.

    Raises:
        ConfigError: they are not even one sequence.

    >>> store = hold_tokens(encode_documents([np.array([5, 6]), np.array([7])]))
    >>> rows = TokenRows(store, np.array([1, 0]), 2, "train")
    >>> rows.gather_tokens(torch.tensor([0, 1]))
    tensor([[0, 7, 0],
            [0, 5, 6]], dtype=torch.int32)
    >>> rows.find_documents(torch.tensor([0, 1]))
    tensor([[0, 0],
            [1, 1]])
    """

    def __init__(self, store: TokenStore, documents: np.ndarray, context: int, split: str) -> None:
        self.store, self.shape = store, (context,)
        # documents that stand together in the store need one number: most of a large split do
        heads = np.append(0, np.flatnonzero(np.diff(documents) != 1) + 1)
        last, starts = documents[np.append(heads[1:], len(documents)) - 1], np.asarray(store.starts)
        begins = starts[documents[heads]]
        self.ends = np.cumsum(starts[last + 1] - begins)
        self.total = int(self.ends[-1])
        # what is added to a place among these documents to come to a place in the store
        self.shifts = begins - np.append(0, self.ends[:-1])
        # and to a document's number among them to come to that in the store
        self.skipped = documents[heads] - heads
        # the last token of all is a target only
        self.count = (self.total - 1) // context
        if self.count < 1:
            raise ConfigError(
                f"data.source.context={context}: the {split} split has {len(documents)} documents "
                f"of {self.total} tokens in all, and a sequence needs {context + 1}: lower it, "
                f"give {split} more documents, or more text"
            )

    def __len__(self) -> int:
        return self.count

    def gather_tokens(self, index: Tensor) -> Tensor:
        """Return tokens int32 [m, T + 1].

        Args:
            index: numbers of sequences, int64 [m].
        """
        places, _ = self._find_places(index.numpy(), self.shape[0] + 1)
        return torch.from_numpy(self.store.tokens[places])

    def find_documents(self, index: Tensor) -> Tensor:
        """Return which of the documents each place stands in, int64 [m, T].

        Args:
            index: numbers of sequences, int64 [m].
        """
        places, runs = self._find_places(index.numpy(), self.shape[0])
        return torch.from_numpy(self._find_owners(places) - self.skipped[runs])

    def name_documents(self) -> np.ndarray:
        """Return the number in the store of the document that each sequence begins in, [n]."""
        places, _ = self._find_places(np.arange(len(self)), 1)
        return self._find_owners(places)[:, 0]

    def _find_places(self, index: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the first places of sequences lie in the store, and in which runs of it."""
        places = index[:, None] * self.shape[0] + np.arange(length)
        # one look-up for all places of a batch takes less time than a loop over sequences
        runs = np.searchsorted(self.ends, places.ravel(), side="right").reshape(places.shape)
        return places + self.shifts[runs], runs

    def _find_owners(self, places: np.ndarray) -> np.ndarray:
        found = np.searchsorted(self.store.starts, places.ravel(), side="right") - 1
        return found.reshape(places.shape)

    def list_runs(self) -> list[tuple[int, int]]:
        """List the places of the store, from one to before another, that the documents take."""
        begins = np.append(0, self.ends[:-1]) + self.shifts
        return list(zip(begins.tolist(), (self.ends + self.shifts).tolist(), strict=True))

    @property
    def is_mapped(self) -> bool:
        """Whether the tokens lie in a file."""
        return isinstance(self.store.tokens, np.memmap)

    def read_all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs and targets int64 [n, T], and the document of each input."""
        index = torch.arange(len(self))
        tokens, owners = self.gather_tokens(index), self.find_documents(index)
        return tokens[:, :-1].long().contiguous(), tokens[:, 1:].long().contiguous(), owners


class TokenTargets:
    """The targets of sequences [n, T], read as they are asked for; all else takes them whole.

    Args:
        rows: the sequences.
    """

    def __init__(self, rows: TokenRows) -> None:
        self.rows, self.ndim = rows, 2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.rows.gather_tokens(index)[:, 1:].long()

    def __getattr__(self, name: str) -> Any:
        if name == "rows":  # before it is there, as while a copy is made
            raise AttributeError(name)
        return getattr(self.rows.read_all()[1], name)


class TokenOwners(TokenTargets):
    """The document that each place of sequences stands in, [n, T], read as it is asked for."""

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.rows.find_documents(index)

    def max(self) -> int:
        """Return the largest number of a document."""
        return int(self.rows.find_documents(torch.tensor([len(self) - 1]))[0, -1])

    def __getattr__(self, name: str) -> Any:
        if name == "rows":
            raise AttributeError(name)
        return getattr(self.rows.read_all()[2], name)


class TokenSplit:
    """A split of sequences that are read from the file of tokens as batches ask for them.

    Args:
        rows: the sequences.
        device: where batches go.
    """

    keep_source = True
    """As of a `TensorSplit`: stacked runs read the one file, too."""

    def __init__(self, rows: TokenRows, device: torch.device | str = "cpu") -> None:
        self.rows, self.device = rows, torch.device(device)
        self.y: Any = TokenTargets(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def x(self) -> Tensor:
        """All inputs int64 [n, T], which are read each time."""
        return self.rows.read_all()[0]

    def batch(self, index: Tensor) -> Batch:
        """Read the sequences of some numbers.

        Args:
            index: int64 [m].
        """
        tokens = self.rows.gather_tokens(index)
        if self.device.type == "cuda":  # nothing waits for the copy of pinned memory
            tokens = tokens.pin_memory()
        tokens = tokens.to(self.device, non_blocking=True).long()
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for every index tensor of the plan."""
        return map(self.batch, plan)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TokenSplit:
        """Return the same sequences, whose batches go to ``device``.

        Args:
            device: where batches are to lie.
            dtype: of floating-point numbers, of which there are none.
        """
        return TokenSplit(self.rows, device)

    def place_samples(self, x: Tensor, y: Tensor) -> Batch:
        """Give other samples the device of these.

        Args:
            x: tokens.
            y: the tokens that follow.
        """
        return Batch(x.to(self.device), y.to(self.device))


class RowNames(Mapping[str, np.ndarray]):
    """What tells sequences apart: the document each begins in, and its number; made when asked for.

    Args:
        rows: of a split.
    """

    def __init__(self, rows: TokenRows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[str]:
        return iter(("row", "sequence"))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "sequence":
            return np.arange(len(self.rows))
        if name != "row":
            raise KeyError(name)
        return self.rows.name_documents()
