"""A file is replaced as a whole, or stays as it was."""

from __future__ import annotations

import os

import pytest

from truerisk.core.atomic_files import replacing, write_atomic


@pytest.mark.parametrize("options", [{}, {"durable": True}, {"contended": True}])
def test_what_is_written_aside_takes_the_place_of_the_old(tmp_path, options):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path, **options) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a.bin", b"new")]


def test_what_fails_on_the_way_leaves_the_old_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(OSError, match="full"), replacing(path) as part:
        part.write_text("half")
        raise OSError("disk full")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a.txt", "old")]


def test_only_a_durable_file_is_flushed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    for durable in (False, True):
        with replacing(tmp_path / "a", durable=durable) as part:
            part.write_text("a")
        assert len(flushed) == durable
