"""A larger text takes a larger file, and no more memory."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from truerisk.data.token_rows import hold_tokens, map_tokens

SCRIPT = """
import sys, torch
from functools import partial
import truerisk.data.text_source as module
from truerisk.data import RunData, text

def anonymous():  # what a process has for itself: pages of files are shared, and given back
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

module.HELD = 0
source = partial(text, path=sys.argv[1], separator="|", tokenizer="bytes", context=1024)
data = RunData(source, 8, standardize="none")
before = anonymous()
data.prepare()
order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
for batch in data.train.batches(order[:64].split(8)):
    assert batch.x.shape[1] == 1024 and batch.x.dtype == torch.int64
for index in torch.arange(len(data.test)).split(64):
    data.groups["test"][index]
print(data.packer.rows["train"].total, anonymous() - before)
"""

WHOLE_RUN = """
import resource, sys
from pathlib import Path
import numpy as np
import truerisk
import truerisk.data.text_source as module
from truerisk.data.token_rows import open_store

class MadeUp:  # documents of zeros
    def __init__(self, reader, shape):
        self.shape, self.blank, self.digest = shape, 0, "0"
        self.sizes = np.full(TOKENS // LENGTH, LENGTH - 1, dtype=np.uint16)
    def __len__(self):
        return len(self.sizes)
    def read_texts(self):
        return iter(())

module.Documents = MadeUp
def store_tokens(self, tokenizer):
    file = Path(f"{sys.argv[1]}/{TOKENS}.bin")
    with file.open("wb") as stream:
        stream.truncate(4 * TOKENS)
    np.arange(0, TOKENS + 1, LENGTH).tofile(file.with_suffix(".starts"))
    return open_store(file)

module.TextPacker._store_tokens = store_tokens
LENGTH, context = int(sys.argv[2]), int(sys.argv[3])
given = ["data=text", "model=gpt", "data.source.tokenizer=bytes", f"data.source.context={context}"]
given += ["model.width=8", "model.depth=1", "model.heads=2", "regularizer=[]", "data.val=2"]
# few are read, as each maps the pages around it
given += ["data.test=2", "data.batch_size=4", "risk.train_samples=9", "risk.final_train_samples=9"]
given += ["trainer.max_steps=3", "figures=false"]
for TOKENS in (80_000, 40_000_000):
    truerisk.train(given, folder=f"{sys.argv[1]}/{TOKENS}")
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""

ALONE = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""So that blocks which are freed go back to the system, and are not counted."""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measured by Linux's figures")
def test_ten_times_the_tokens_take_no_more_memory(tmp_path):
    found = {}
    for size in (10**6, 10**7):
        file = tmp_path / f"{size}.txt"
        with file.open("w") as stream:
            for k in range(size // 10_000):
                stream.write(f"{k:9d}" + "a document of ten kB " * 476 + "|")
        found[size] = [
            int(number)
            for number in subprocess.run(
                [sys.executable, "-c", SCRIPT, str(file)],
                env={**os.environ, **ALONE, "XDG_CACHE_HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
        ]
    (few, small), (many, large) = found.values()
    assert many > 9 * few
    # the larger text has 40 MB of tokens
    assert large < small + 5e6, found


@pytest.mark.parametrize(
    ("length", "context", "bound"),
    [
        # the order of an epoch, as a permutation is drawn whole: 4 bytes a sequence, and twice that
        # for what malloc keeps; of 5 million sequences the tokens alone are 160 MB
        (8000, 8, 8 * 5e6),
        # a million documents: where each begins is a file, which counts while it is read
        # (100 MB where that, and sums of the losses of each, are held)
        (40, 40, 45e6),
    ],
)
def test_a_run_holds_little_of_sequences_and_documents(length, context, bound, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_RUN, str(tmp_path), str(length), str(context)],
        env={**os.environ, **ALONE},
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = (int(line[5:]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert many - few < bound, (few, many)


def test_a_process_that_was_not_forked_maps_the_file_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parts = [np.arange(n, dtype=np.int32) for n in (5000, 40_000)]
    for store in (hold_tokens(parts), map_tokens(parts, "some")):
        text = pickle.dumps(store)
        other = pickle.loads(text)
        assert all(map(np.array_equal, other, store))
        if isinstance(store.tokens, np.memmap):
            assert other.tokens.filename == store.tokens.filename and len(text) < 1000
        else:
            assert len(text) > store.tokens.nbytes


def test_who_comes_while_another_writes_it_has_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # of another process, as of the one below
    monkeypatch.setattr("truerisk.core.atomic_files.os.getpid", itertools.count(1).__next__)
    parts, others = [np.arange(n, dtype=np.int32) for n in (5000, 40_000)], []

    def written_slowly():
        yield parts[0]
        others.append(map_tokens(parts, "some"))
        yield parts[1]

    for store in (map_tokens(written_slowly(), "some"), *others, map_tokens(iter(()), "some")):
        assert np.array_equal(store.tokens, np.concatenate(parts))
        assert store.starts.tolist() == [0, 5000, 45_000]
    assert len(others) == 1
    assert {path.suffix for path in (tmp_path / "truerisk").iterdir()} == {
        *(".bin", ".starts", ".sha256")
    }
