"""Dataloaders of our data, for anybody's LightningModule or loop."""

from __future__ import annotations

from functools import partial, partialmethod

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.data import (
    BatchPlan,
    DataModule,
    LoaderSplit,
    Samples,
    Standardizer,
    diabetes,
    iris,
    text,
)
from truerisk.data.token_rows import TokenRows, TokenSplit, encode_documents, hold_tokens

BATCH = 25


class Theirs(L.LightningModule):
    """What a user wrote without a thought of us."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen, self.tested = nn.Linear(4, 3), [], []

    def training_step(self, batch, index):
        x, y = batch
        self.seen.append((self.current_epoch, x, y))
        return nn.functional.cross_entropy(self.layer(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val", nn.functional.cross_entropy(self.layer(x), y))

    def test_step(self, batch, index):
        self.tested.append(batch)

    def predict_step(self, batch, index):
        return self.layer(batch[0]).argmax(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def trainer(tmp_path):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return L.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)


def test_any_lightning_module_is_fitted_on_our_data(trainer):
    data, module = DataModule(iris, batch_size=BATCH, seed=4), Theirs()
    trainer.fit(module, datamodule=data)
    assert "val" in trainer.callback_metrics
    for epoch in (0, 1):
        order = torch.cat([x for e, x, _ in module.seen if e == epoch])
        expected = data.train.x[BatchPlan(data.num_train, BATCH, seed=4).order(epoch)]
        torch.testing.assert_close(order, expected.float(), rtol=0, atol=0)
    assert not torch.equal(module.seen[0][1], module.seen[len(module.seen) // 2][1])
    trainer.test(module, datamodule=data, verbose=False)
    tested = [torch.cat(parts) for parts in zip(*module.tested, strict=True)]
    assert torch.equal(tested[0], data.test.x.float()) and torch.equal(tested[1], data.test.y)
    predicted = torch.cat(trainer.predict(module, datamodule=data))
    assert predicted.shape == data.test.y.shape


def test_batches_are_those_of_a_run_of_ours():
    data = DataModule(iris, batch_size=BATCH, seed=1)
    loader = data.train_dataloader()
    plan = BatchPlan(data.num_train, BATCH, seed=1)
    assert len(loader) == plan.steps_per_epoch
    for epoch in (0, 1):
        steps = [index for [(index, _)] in plan.epoch(epoch)]
        for (x, y), index in zip(loader, steps, strict=True):
            assert torch.equal(x, data.train.batch(index).x.float())
            assert torch.equal(y, data.train.y[index])


def test_a_run_of_ours_gives_its_order():
    from truerisk.assemble import assemble
    from truerisk.config.compose import compose

    recipe = assemble(compose(["data=iris", "seed.order=7"]))
    order = list(DataModule.from_run(recipe.data).train_dataloader().sampler)
    assert order == recipe.plan().order(0).tolist()


def test_targets_and_inputs_take_the_default_type():
    x, y = next(iter(DataModule(diabetes, batch_size="full").train_dataloader()))
    assert x.dtype == y.dtype == torch.float32 and len(x) == len(y) > 200


@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_is_not_held_in_memory_is_read_as_it_is_needed(workers):
    held = DataModule(iris, batch_size=BATCH)
    lazy = DataModule(iris, batch_size=BATCH, in_memory=False, workers=workers)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pairs = zip(getattr(lazy, name)(), getattr(held, name)(), strict=True)
        for (x, y), (other_x, other_y) in pairs:
            torch.testing.assert_close(x, other_x)
            assert torch.equal(y, other_y)


def test_without_a_split_there_are_no_batches_of_it():
    data = DataModule(iris, test=None)
    assert data.test_dataloader() == data.predict_dataloader() == []


def test_loading_draws_nothing_from_the_global_generators():
    data = DataModule(iris, batch_size=BATCH)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()


def test_tokens_stay_whole_numbers():
    tokens = torch.arange(60).reshape(20, 3) % 5
    data = DataModule(Samples(tokens, tokens, "next_token"), batch_size=4)
    x, y = next(iter(data.train_dataloader()))
    assert x.dtype == y.dtype == torch.int64 and x.shape == (4, 3)
    with pytest.raises(ConfigError, match=r"data\.standardize=global does nothing"):
        DataModule(Samples(tokens, tokens, "next_token"), standardize="global").train_dataloader()


def noted(data):
    data.prepare()
    return data.notes


@pytest.mark.parametrize("workers", [0, 2])
def test_tokens_of_a_file_are_those_in_memory(workers, tmp_path, monkeypatch):
    for k in range(9):
        (tmp_path / f"{k}.txt").write_text("abcdefg"[k % 5 :] * 9)
    source = partial(text, path=str(tmp_path / "*.txt"), context=8)
    make = partial(DataModule, source, batch_size=4, standardize="none", workers=workers)
    held = [list(make().train_dataloader()), list(make().test_dataloader())]
    assert not any("data.workers" in note for note in noted(make()))
    monkeypatch.setattr("truerisk.data.text_source.HELD", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mapped = [list(make().train_dataloader()), list(make().test_dataloader())]
    assert list(tmp_path.glob("truerisk/tokens-*.bin"))
    told = [note for note in noted(make()) if note.startswith("data.workers=2: no process reads")]
    assert len(told) == bool(workers)
    for mine, theirs in zip(mapped, held, strict=True):
        for (x, y), (other_x, other_y) in zip(mine, theirs, strict=True):
            assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_what_goes_to_a_gpu_goes_through_pinned_memory(monkeypatch):
    x, y = torch.zeros(4, 2), torch.zeros(4)
    read = LoaderSplit(x, y, Standardizer())
    for device in ("cpu", "cuda"):
        loader = read.to(device, torch.float32)._open_loader()
        assert loader.pin_memory == (device == "cuda")
    rows = TokenRows(hold_tokens(encode_documents([np.arange(1, 9)])), np.array([0]), 4, "train")
    done = []

    def note(tensor, *given, name, **more):  # a device that need not be there
        done.append(name)
        return tensor

    for name in ("pin_memory", "to"):
        monkeypatch.setattr(torch.Tensor, name, partialmethod(note, name=name))
    TokenSplit(rows, "cuda").batch(torch.tensor([1]))
    assert done == ["pin_memory", "to"]
    done.clear()
    TokenSplit(rows).batch(torch.tensor([1]))
    assert done == ["to"]
