"""What large models are trained with, on small ones: processes, shards, bfloat16, accumulation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from truerisk import load_run
from truerisk.model import GPT as GPTModel
from truerisk.task import next_token

GPT = [
    "data=text",
    "data.source.context=8",
    "data.val=3",
    "data.test=3",
    "model=gpt",
    "model.width=8",
    "model.depth=2",
    "model.heads=2",
    "optimizer=adamw",
    "param_groups=no_decay",
    "scheduler=cosine",
    "step.clip.norm=1",
    "trainer.max_epochs=2",
    "trainer.precision=64-true",
    "figures=false",
]
BATCH = ["data.batch_size=8", "step.accumulate=1"]
HALVES = ["data.batch_size=4", "step.accumulate=2"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    often = [0.6, 0.2, 0.1, 0.1]
    for k in range(16):
        # 50 tokens with the one before: six sequences a document, and odd batches at the end
        (folder / f"{k}.txt").write_text("".join(draw.choice(list("abcd"), 49, p=often)))
    return f"data.source.path={folder}"


@pytest.fixture(scope="module")
def whole(run, texts):
    """One process, whole batches."""
    return run(*GPT, *BATCH, texts)


def assert_alike(result, whole, within=1e-6):
    assert result.status == whole.status == "finished"
    assert result.summary["risk/test"].value == pytest.approx(
        whole.summary["risk/test"].value, rel=within
    )
    mine = result.network.state_dict()
    for name, weight in whole.network.state_dict().items():
        torch.testing.assert_close(mine[name], weight, rtol=0, atol=within, check_dtype=False)


def test_halves_that_accumulate_are_the_whole_batch(run, texts, whole):
    assert_alike(run(*GPT, *HALVES, texts, "recompute=true"), whole)


LOOKS = [
    "diagnostics=[taylor,activations,feature_change,numerics]",
    "risk.train_samples=30",
    "trainer.max_epochs=1",
]


def test_outside_of_training_few_tokens_are_taken_at_once(run, texts, monkeypatch):
    """Scores of a thousand sequences of 1024 tokens, of 50,000 kinds, would be 200 GB."""
    sizes = []

    def forward(model, x, plain=GPTModel.forward):
        sizes.append(x.numel())
        return plain(model, x)

    monkeypatch.setattr(GPTModel, "forward", forward)
    whole = run(*GPT, *BATCH, *LOOKS, texts)
    assert max(sizes) == 496  # the whole training set
    monkeypatch.setattr(next_token, "TOKENS", 100)
    sizes.clear()
    found = run(*GPT, *BATCH, *LOOKS, texts)
    assert max(sizes) == 96  # twelve sequences of eight
    assert_alike(found, whole, 1e-12)
    numbers = whole.history["value"].to_numpy()
    np.testing.assert_allclose(found.history["value"].to_numpy(), numbers, rtol=1e-6, atol=1e-12)


def test_bfloat16_is_near(run, texts, whole):
    lean = ["trainer.precision=bf16-mixed", "recompute=true"]
    result = run(*GPT, *HALVES, texts, *lean)
    assert {p.dtype for p in result.network.parameters()} == {torch.float32}
    assert result.summary["risk/test"].value == pytest.approx(
        whole.summary["risk/test"].value, rel=0.02
    )


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_two_processes_are_one(trainer, texts, whole, tmp_path):
    """Copies or shards, each with half of every micro-batch, recomputed."""
    processes = [f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2"]
    words = [*GPT, *HALVES, texts, *processes, "trainer.precision=64-true", "recompute=true"]
    command = [sys.executable, "-m", "truerisk", "train", f"hydra.run.dir={tmp_path}/run", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_alike(load_run(tmp_path / "run"), whole)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(
    torch.__version__.startswith("2.9."),
    reason="what torch 2.9 compiles of attention's gradient takes no double precision on a CPU",
)
def test_what_is_compiled_is_the_same(run, texts):
    small = [*GPT, *BATCH, texts, "model.depth=1", "trainer.max_epochs=1", "data.num_train=8"]
    assert_alike(run(*small, "compile=true"), run(*small))


IMAGES = [
    *("data=digits", "data.num_train=19", "data.val=9", "data.test=8", "data.batch_size=8"),
    *("optimizer=sgd", "optimizer.lr=0.1", "trainer.max_epochs=2", "trainer.precision=64-true"),
    *("regularizer=[]", "figures=false"),
]
VIT = [*IMAGES, "model=vit", "model.width=8", "model.depth=1", "model.heads=2"]
RESNET = [*IMAGES, "model=resnet20", "model.depth=1", "model.width=4"]

TWO = """
import sys

import truerisk.task.task
from truerisk import train

truerisk.task.task.BATCH = 4  # one process measures 5 validation samples in two blocks, the other 4
processes = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=64-true"]
processes += ["trainer.sync_batchnorm=false"]
for words in sys.argv[2:]:
    given = words.split()
    for trainer in ("ddp", "fsdp"):
        name = next(word for word in given if word.startswith("model="))
        train([*given, f"trainer={trainer}", *processes], folder=f"{sys.argv[1]}/{trainer}/{name}")
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Networks on images in two processes, one after the other, as each start takes seconds."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "two.py"
    script.write_text(TWO)  # which the second process is started with, too
    command = [sys.executable, str(script), str(folder), " ".join(VIT), " ".join(RESNET)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_a_vision_transformer_in_two_processes_is_that_of_one(trainer, run, two):
    assert_alike(load_run(two / trainer / "model=vit"), run(*VIT), 1e-10)


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_a_resnet_in_two_processes_normalizes_each_half_of_a_batch(trainer, two, assembled):
    """As batch norm is not synchronized: a plain loop over both halves takes the same steps.

    The running statistics are those of the first process.
    """
    recipe = assembled(*RESNET)
    model, data = recipe.model.double().train(), recipe.data.train
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plans = [recipe.plan(rank, 2) for rank in (0, 1)]
    for epoch in (0, 1):
        for step in zip(*(plan.epoch(epoch) for plan in plans), strict=True):
            optimizer.zero_grad()
            for rank, ((index, share),) in enumerate(step):
                first = [buffer.clone() for buffer in model.buffers()]
                loss = torch.nn.functional.cross_entropy(
                    model(data.x[index].double()), data.y[index]
                )
                (loss * share / 2).backward()
                for buffer, before in zip(model.buffers(), first, strict=True):
                    if rank:
                        buffer.copy_(before)
            optimizer.step()
    file = two / trainer / "model=resnet20/checkpoints/last.ckpt"
    found = torch.load(file, weights_only=True)
    assert found["truerisk"]["step"]["count"] == 6
    for name, value in model.state_dict().items():
        theirs = found["state_dict"][f"model.{name}"]
        torch.testing.assert_close(theirs, value, rtol=0, atol=1e-10, check_dtype=False)
