"""Hints in messages."""

from __future__ import annotations

import gzip

import pytest

import truerisk
from truerisk.core.errors import (
    MOST,
    ConfigError,
    describe_error,
    describe_fault,
    first_line,
    join_lines,
    read_message,
    suggest,
)
from truerisk.data.image_sets import PackedFiles
from truerisk.fit import refusing_trainer


def test_a_hint_does_not_list_a_whole_folder():
    names = [f"{i:03}" for i in range(MOST + 7)]
    hint = suggest("zzz", names)
    assert hint.startswith("known: 000, ") and hint.endswith(f"{MOST - 1:03}, … (7 more)")
    assert suggest("zzz", names[:MOST]).endswith(f"{MOST - 1:03}")


def test_all_that_an_error_says_is_shown_above_its_lines():
    try:
        raise ValueError("shapes differ:\ngot 3\nneed 4")
    except ValueError as error:
        told = describe_fault(error).splitlines()
    assert told[:3] == ["ValueError: shapes differ:", "  got 3", "  need 4"] and len(told) == 4
    assert "test_errors.py, line " in told[3]
    try:
        raise ValueError("\n".join(f"key {i}" for i in range(1000)))
    except ValueError as error:
        told = describe_fault(error).splitlines()
    assert len(told) < 20 and "  key 999" in told and "more lines]" in "".join(told)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize("error", [EOFError(), EOFError(" \n"), Mute()])
def test_an_error_that_says_nothing_is_told_by_its_kind(error):
    for tell in (read_message, first_line, join_lines, describe_error, describe_fault):
        assert tell(error) == type(error).__name__


def test_a_line_that_ends_in_a_colon_is_told_with_what_follows():
    assert first_line(OSError("cannot open:\n\n  - gz: empty\n  - xz: none")) == (
        "cannot open: gz: empty"
    )
    assert describe_error(OSError("cannot open:")) == "OSError: cannot open"


CONTENTS = {"empty": b"", "text": b"<html>", "packed": gzip.compress(b"no archive" * 99)}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_damaged_archive_says_how_it_cannot_be_read(tmp_path, content):
    file = tmp_path / "a.tar.gz"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be read \(.*[^:]\); fetch it again"):
        PackedFiles(file, "CIFAR-10").read("test_batch.bin")


def test_what_breaks_off_without_a_word_is_told_by_its_kind(tmp_path, monkeypatch):
    (tmp_path / "own_mute.py").write_text("assert False")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"importing own_mute fails: AssertionError$"):
        truerisk.train(["data=iris", "model._target_=own_mute.Net"])
    with pytest.raises(ConfigError, match=r"trainer: ValueError$"), refusing_trainer():
        raise ValueError
