"""Texts to whole numbers and back: bytes, characters, subwords; token 0 begins a document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from truerisk.core.errors import ConfigError, first_line, suggest

BOUNDARY = 0
"""The token that stands before each document; no text has it."""
UNKNOWN = 1
"""The token of characters that the training documents do not have."""
KINDS = ("bytes", "characters", "bpe")


class Tokenizer(Protocol):
    """What turns texts into tokens from 1, and tokens into texts.

    Attributes:
        size: how many tokens there are, with the boundary.
    """

    size: int

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, [t]."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; a boundary is an empty text."""
        ...

    def count_bytes(self) -> list[int]:
        """Return how many bytes of UTF-8 each token stands for, [size]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes it from."""
        ...


class ByteTokenizer:
    """Each byte of UTF-8 is a token, its value plus 1.

    >>> ByteTokenizer().encode("hé").tolist(), ByteTokenizer().decode([105, 196, 170])
    ([105, 196, 170], 'hé')
    """

    size = 257

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, [t]."""
        content = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        return content.astype(np.int32) + 1

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; what is no UTF-8 becomes �."""
        return bytes(t - 1 for t in tokens if t != BOUNDARY).decode(errors="replace")

    def count_bytes(self) -> list[int]:
        """Return 0 for the boundary, and 1 for each other token."""
        return [0] + [1] * 256

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes it from."""
        return {"tokenizer": "bytes"}


class CharacterTokenizer:
    """Each character of the training documents is a token; all others are one, the unknown.

    Args:
        symbols: the characters, in their order.

    >>> tokenizer = CharacterTokenizer("abc")
    >>> tokenizer.encode("cab!").tolist(), tokenizer.decode([4, 2, 3, 1])
    ([4, 2, 3, 1], 'cab�')
    """

    def __init__(self, symbols: str) -> None:
        self.symbols = symbols
        self.codes = np.array([ord(symbol) for symbol in symbols], dtype=np.uint32)
        self.size = len(symbols) + 2

    @classmethod
    def fit_texts(cls, texts: Iterable[str]) -> CharacterTokenizer:
        """Collect the characters of some texts, in the order of Unicode.

        Args:
            texts: of the training split.
        """
        found: set[str] = set()
        for text in texts:
            found.update(text)
        return cls("".join(sorted(found)))

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, [t]."""
        # four bytes a character, which are searched for all at once
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        known = self.codes[places] == codes
        return np.where(known, places + 2, UNKNOWN).astype(np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; the unknown is �."""
        names = ("", "\ufffd", *self.symbols)
        return "".join(names[token] for token in tokens)

    def count_bytes(self) -> list[int]:
        """Return the bytes of each character; an unknown one is taken for one byte."""
        return [0, 1, *(len(symbol.encode("utf-8", "surrogatepass")) for symbol in self.symbols)]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes it from."""
        return {"tokenizer": "characters", "symbols": self.symbols}


class SubwordTokenizer:
    """A tokenizer of Hugging Face's library, each of its tokens one higher.

    Args:
        backend: its ``tokenizers.Tokenizer``.
    """

    def __init__(self, backend: Any) -> None:
        # a saved one may cut each text, or fill it up, to the length of a model's input
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.size = backend.get_vocab_size(with_added_tokens=True) + 1
        self.texts = [backend.id_to_token(k) or "" for k in range(self.size - 1)]
        state = json.loads(backend.to_str())
        # a letter for each byte; it may be one step of several
        self.spells_bytes = '"ByteLevel"' in json.dumps(state["pre_tokenizer"])
        self.lacking: set[str] = set()
        if self.spells_bytes and state["model"].get("unk_token") is None:
            self.lacking = set(import_library().pre_tokenizers.ByteLevel.alphabet())
            self.lacking -= set(self.texts)

    @classmethod
    def fit_texts(cls, texts: Iterator[str], vocabulary: int) -> SubwordTokenizer:
        """Learn merges of byte pairs (Sennrich et al. 2016; on bytes: Radford et al. 2019).

        Args:
            texts: of the training split.
            vocabulary: how many tokens there are to be, with the boundary.

        Raises:
            ConfigError: the library is missing, or bytes and boundary alone are as many.
        """
        library = import_library()
        if vocabulary < 257:
            raise ConfigError(
                f"data.source.vocabulary is {vocabulary}: the bytes and the boundary alone are 257"
            )
        backend = library.Tokenizer(library.models.BPE())
        backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = library.decoders.ByteLevel()
        # all bytes, so that no text has a character which it cannot write
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary - 1,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, [t], without those that a template would add.

        Raises:
            ConfigError: there is no token for a byte of it, which would be left out without a word.
        """
        if self.lacking:
            self._require_tokens(text)
        found = self.backend.encode(text, add_special_tokens=False).ids
        return np.array(found, dtype=np.int32) + 1

    def _require_tokens(self, text: str) -> None:
        """Refuse a text with a byte that there is no token for."""
        if self.backend.normalizer is not None:
            text = self.backend.normalizer.normalize_str(text)
        words = self.backend.pre_tokenizer.pre_tokenize_str(text)
        letters = {letter for word, _ in words for letter in word}
        if missing := sorted(letters & self.lacking):
            raise ConfigError(
                f"data.source.tokenizer: it has no token for {len(missing)} of the bytes of a text "
                f"({', '.join(missing[:5])} as it spells them) and would leave them out: train it "
                "with all bytes (initial_alphabet=ByteLevel.alphabet()), or take tokenizer=bpe"
            )

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        # the boundary has no place in the library's numbers
        ids = [token - 1 for token in tokens if token != BOUNDARY]
        return str(self.backend.decode(ids, skip_special_tokens=False))

    def count_bytes(self) -> list[int]:
        """Return by how many bytes each token lengthens a text that has begun."""
        # a byte may be a part of a character, whose text would be longer than itself
        if self.spells_bytes:
            return [0, *map(len, self.texts)]
        return [0, *map(self._count_bytes_of, range(self.size - 1))]

    def _count_bytes_of(self, token: int) -> int:
        """Return the bytes of one of the library's tokens."""
        if re.fullmatch("<0x[0-9A-F]{2}>", self.texts[token]):
            return 1
        # after another one: the blank that a word begins with is lost at a text's beginning
        return len(self.decode([1, token + 1]).encode()) - len(self.decode([1]).encode())

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes it from."""
        return {"tokenizer": "bpe", "json": self.backend.to_str()}


def import_library() -> Any:
    """Return the module ``tokenizers``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        raise ConfigError(
            "data.source.tokenizer: subwords need the library tokenizers: install it by "
            "pip install 'truerisk[text]', or take bytes or characters"
        ) from None
    return tokenizers


def fit_tokenizer(kind: str, read_texts: Callable[[], Iterator[str]], vocabulary: int) -> Tokenizer:
    """Fit a tokenizer to the training documents, or read a saved one.

    Args:
        kind: one of ``KINDS``, or the path of a tokenizer's JSON file.
        read_texts: begins to read the training documents.
        vocabulary: tokens of ``bpe``.

    Raises:
        ConfigError: it is neither.
    """
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "characters":
        return CharacterTokenizer.fit_texts(read_texts())
    if kind == "bpe":
        return SubwordTokenizer.fit_texts(read_texts(), vocabulary)
    file = Path(kind).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"data.source.tokenizer is '{kind}': it is no file, and {suggest(kind, KINDS)}"
        )
    library = import_library()
    try:
        return SubwordTokenizer(library.Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises nothing more special
        raise ConfigError(
            f"data.source.tokenizer: {file} is no file of the library tokenizers "
            f"({first_line(error)}); its Tokenizer.save writes one"
        ) from None


def load_tokenizer(state: Mapping[str, Any]) -> Tokenizer:
    """Make a tokenizer again.

    Args:
        state: as its ``state_dict`` gave it.

    >>> load_tokenizer(CharacterTokenizer("ab").state_dict()).size
    4
    """
    if state["tokenizer"] == "bytes":
        return ByteTokenizer()
    if state["tokenizer"] == "characters":
        return CharacterTokenizer(state["symbols"])
    return SubwordTokenizer(import_library().Tokenizer.from_str(state["json"]))


def describe_tokenizer(state: Mapping[str, Any]) -> str:
    """Return a tokenizer's state as one text, for digests.

    Args:
        state: as its ``state_dict`` gave it.
    """
    return json.dumps(dict(state), sort_keys=True)
