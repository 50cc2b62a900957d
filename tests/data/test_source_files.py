from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from truerisk.data import source_files
from truerisk.data.source_files import KEPT_SETS, cache_folder, load_or_make


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "truerisk"


class Maker:
    """Makes an array, and counts how often."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return {"a": np.linspace(0, 1, 1000), "b": np.arange(3)}


def twice(make, packages=("numpy",)):
    return [load_or_make("data", packages, make) for _ in range(2)]


def same(one, other):
    return all(np.array_equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in other)


def test_what_was_made_once_is_read_back_to_the_bit(cache):
    make = Maker()
    first, second = twice(make)
    assert make.made == 1 and same(first, second) and same(second, first)
    (file,) = cache.iterdir()
    assert file.match(f"data-{np.__version__}-*.npz")


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"?" + b])
def test_a_file_that_was_cut_off_is_made_anew(cache, spoil):
    make = Maker()
    good = twice(make)[0]
    (file,) = cache.iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    found = twice(make)
    assert make.made == 2 and all(same(f, good) for f in found)


def test_a_bit_that_flipped_is_noticed(cache):
    make = Maker()
    good = twice(make)[0]
    (file,) = cache.iterdir()
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    file.write_bytes(bytes_)
    assert all(same(found, good) for found in twice(make)) and make.made == 2


def test_another_version_is_another_file(cache):
    make = Maker()
    twice(make), twice(make, ("scipy",))
    assert make.made == 2 and len(list(cache.iterdir())) == 2


def test_sets_of_other_numbers_are_other_files_of_which_the_last_stay(cache):
    make = Maker()
    for number in range(KEPT_SETS + 2):
        load_or_make("data", ("numpy",), make, [("seed", number)])
    assert make.made == KEPT_SETS + 2 and len(list(cache.iterdir())) == KEPT_SETS
    load_or_make("data", ("numpy",), make, [("seed", 2)])
    assert make.made == KEPT_SETS + 2
    load_or_make("data", ("numpy",), make, [("seed", 1)])  # the oldest went
    assert make.made == KEPT_SETS + 3


def test_a_large_set_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(source_files, "KEPT_BYTES", 1000)
    make = Maker()
    first, second = twice(make)
    assert make.made == 2 and same(first, second) and not cache.exists()


def test_where_nothing_can_be_written_nothing_is_kept(cache):
    cache.write_text("a file where the folder would be")
    make = Maker()
    first, second = twice(make)
    assert make.made == 2 and same(first, second)


def test_a_write_that_fails_leaves_nothing(cache, monkeypatch):
    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    make = Maker()
    first, second = twice(make)
    assert make.made == 2 and same(first, second) and not list(cache.iterdir())


def test_a_relative_cache_folder_is_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder() == Path.home() / ".cache" / "truerisk"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "truerisk"


@pytest.mark.parametrize("numbers", ["", "num_samples=100, train_split=0.7"])
def test_mnist1d_is_generated_once_and_stays_what_it_was(cache, numbers):
    code = f"""
import sys
from truerisk.data import mnist1d
found = mnist1d({numbers})
print("mnist1d.data" in sys.modules, found.x.double().sum().item(), found.test[1].sum().item())
"""
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    generated, read = (run.split() for run in runs)
    assert generated[0] == "True" and read[0] == "False" and generated[1:] == read[1:]
