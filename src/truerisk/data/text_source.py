"""Texts as sequences of tokens, split by document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, format_count
from truerisk.data.documents import Documents, find_reader
from truerisk.data.samples import Samples
from truerisk.data.token_rows import (
    HELD,
    TokenRows,
    TokenStore,
    encode_documents,
    hold_tokens,
    map_tokens,
)
from truerisk.data.tokenizer import (
    UNKNOWN,
    CharacterTokenizer,
    Tokenizer,
    describe_tokenizer,
    fit_tokenizer,
    load_tokenizer,
)


def text(
    path: str | None = None,
    column: str | None = None,
    separator: str | None = None,
    tokenizer: str = "characters",
    vocabulary: int = 4096,
    context: int = 64,
    encoding: str = "utf-8",
    name: str | None = None,
    split: str = "train",
) -> Samples:
    """Read documents, whose tokens become sequences once they are split.

    Token 0 stands before each document. What follows from the training documents (characters,
    merges) is fitted to those alone.

    Args:
        path: a text file, a pattern or a folder of them; with ``column`` a CSV, TSV, Parquet or
            JSONL file, or the name of a Hugging Face data set; None for Python's own reference.
        column: the column of texts, a document a row.
        separator: text between the documents of a file; None where each file is one.
        tokenizer: ``bytes``, ``characters``, ``bpe``, or a JSON file of the library tokenizers.
        vocabulary: tokens of ``bpe``, with the boundary.
        context: tokens of a sequence.
        encoding: of files.
        name: of the configuration of a Hugging Face data set.
        split: of a Hugging Face data set.

    Returns:
        Documents for inputs, which `RunData` splits and then lets the ``packer`` cut.

    Raises:
        ConfigError: there is no text, or it cannot be read.
    """
    for key, value, least in (("context", context, 1), ("vocabulary", vocabulary, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"data.source.{key} is {value!r}: give a whole number ≥ {least}")
    reader, notes = find_reader(path, column, separator, encoding, name, split)
    documents = Documents(reader, (context,))
    if len(documents) < 3:
        found = "there is no text"
        if len(documents):
            found = {1: "it is one document", 2: "there are two documents"}[len(documents)]
        raise ConfigError(
            f"data.source.path: {found}, and splits by document need three at least: give more "
            "files, or data.source.separator=TEXT between the documents of a file"
        )
    notes.append(
        f"{format_count(len(documents), 'document')}, {int(documents.sizes.sum())} bytes "
        f"(SHA-256 {documents.digest[:16]})"
    )
    if documents.blank and separator is None:  # between two separators there may be nothing
        notes.append(f"left out: {documents.blank} without text")
    # splits are drawn of documents as of samples, before there are any sequences
    stand_ins = torch.zeros(1, 1, dtype=torch.uint8).expand(len(documents), 1)
    packer = TextPacker(documents, str(tokenizer), vocabulary)
    return Samples(documents, stand_ins, "next_token", notes=notes, packer=packer)


class TextPacker:
    """Fits a tokenizer to the training documents, and cuts those of each split into sequences.

    Args:
        documents: all of them.
        kind: of the tokenizer, as ``data.source.tokenizer`` has it.
        vocabulary: tokens of ``bpe``.

    Attributes:
        tokenizer: once it is fitted.
        rows: of each split, once they are cut.
        notes: what there is to tell of them, a line each.
    """

    def __init__(self, documents: Documents, kind: str, vocabulary: int) -> None:
        self.documents, self.kind, self.vocabulary = documents, kind, vocabulary
        self.tokenizer: Tokenizer | None = None
        self.rows: dict[str, TokenRows] = {}
        self.notes: list[str] = []

    def fit(self, rows: Tensor) -> None:
        """Fit the tokenizer.

        Args:
            rows: numbers of the training documents, int64 [d].
        """
        self.tokenizer = fit_tokenizer(
            self.kind, lambda: self.documents.select_texts(rows.numpy()), self.vocabulary
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the tokenizer that another run has fitted.

        Args:
            state: see `state_dict`.
        """
        self.tokenizer = load_tokenizer(state)

    def state_dict(self) -> dict[str, Any]:
        """Return what was fitted, as plain values."""
        assert self.tokenizer is not None
        return self.tokenizer.state_dict()

    def describe_texts(self) -> dict[str, Any]:
        """Return how many documents and bytes there are, and their digest."""
        known = self.documents
        return {"documents": len(known), "bytes": int(known.sizes.sum()), "sha256": known.digest}

    def pack(self, parts: Mapping[str, Tensor]) -> None:
        """Cut the documents of each split into sequences.

        Args:
            parts: numbers of the documents, int64 [d] each, by split.
        """
        assert self.tokenizer is not None
        store = self._store_tokens(self.tokenizer)
        context = self.documents.shape[0]
        for name, documents in parts.items():
            rows = TokenRows(store, documents.numpy(), context, name)
            self.rows[name] = rows
            size = int(self.documents.sizes[documents.numpy()].sum())
            self.notes.append(
                f"{name}: {format_count(len(documents), 'document')}, {size} bytes, "
                f"{rows.total} tokens in {format_count(len(rows), 'sequence')} of {context}"
                f"{self._tell_unknown(rows)}"
            )

    def _store_tokens(self, tokenizer: Tokenizer) -> TokenStore:
        # one store for all splits: other seeds and folds read the same file
        parts = encode_documents(map(tokenizer.encode, self.documents.read_texts()))
        if self.documents.sizes.sum() <= HELD:
            return hold_tokens(parts)
        known = self.documents.digest + describe_tokenizer(tokenizer.state_dict())
        return map_tokens(parts, hashlib.sha256(known.encode()).hexdigest()[:32])

    def _tell_unknown(self, rows: TokenRows) -> str:
        if not isinstance(self.tokenizer, CharacterTokenizer) or rows.total * 4 > HELD:
            return ""
        # run by run, as those of a split lie apart
        tokens = (rows.store.tokens[a:b] for a, b in rows.list_runs())
        count = sum(int(np.count_nonzero(part == UNKNOWN)) for part in tokens)
        return f", {count} of them characters that training lacks" if count else ""
