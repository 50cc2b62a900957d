"""What a group leaves behind, however it was begun, cut off or gone on with."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import replace

import pytest
import torch

from truerisk.data import public_sets
from truerisk.sweeps.launcher.stacked_group import StackedGroup

TINY = [
    "data=iris",
    "data.batch_size=20",
    "model.width=4",
    "model.depth=1",
    "trainer.max_epochs=6",
    "checkpoint_seconds=0",
]


def recipes(count, *more):
    return [[*TINY, f"seed={i}", f"optimizer.lr={0.01 * (i + 1)}", *more] for i in range(count)]


def bits(result):
    state = torch.load(result.run.last, weights_only=True)["state_dict"]
    return result.run.metrics.read_bytes(), {k: t.numpy().tobytes() for k, t in state.items()}


NOISY = "regularizer=[dropout,mixup]"


@pytest.mark.parametrize("more", [[], [NOISY], ["model.normalization=batch"], ["model.width=300"]])
def test_adding_members_changes_none(stack, more):
    many = stack(*recipes(7, *more))
    few = stack(*recipes(3, *more))
    assert [bits(a) == bits(b) for a, b in zip(many, few, strict=False)] == [True] * 3
    assert [bits(r) for r in stack(*recipes(7, *more), size=4)] == [bits(r) for r in many]


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_members_on_the_same_data_share_one_copy_of_it(stack, monkeypatch, precision):
    """… also once it has been brought to another type; those on other splits have their own."""
    calls, blocks = [], []
    source, train = public_sets.iris, StackedGroup._train_block

    def count():
        calls.append(1)
        return source()

    def note(self, runs, seconds):
        blocks.append([run.recipe.data for run in runs])
        train(self, runs, seconds)

    monkeypatch.setattr("truerisk.data.iris", count)
    monkeypatch.setattr(StackedGroup, "_train_block", note)
    same = recipes(5, "seed.data=3", f"trainer.precision={precision}")
    stack(*same, size=5)
    assert len(calls) == 1
    (block,) = blocks
    assert len({data.order_seed for data in block}) == 5
    for name in ("train", "val", "test"):
        assert len({getattr(data, name).x.data_ptr() for data in block}) == 1
    stack(*recipes(3, f"trainer.precision={precision}"), size=3)
    assert len(calls) == 4 and len({data.train.x.data_ptr() for data in blocks[1]}) == 3


def test_what_the_data_have_to_say_is_told(stack, monkeypatch, capfd):
    """… also where the size of a block was found out on them before."""
    noted = replace(public_sets.iris(), notes=["flowers of one garden"])
    monkeypatch.setattr("truerisk.data.iris", lambda: noted)
    stack(*recipes(3, "seed.data=3"))
    assert capfd.readouterr().out.count("flowers of one garden") == 1


def test_a_member_that_leaves_changes_no_other(stack):
    patient = "regularizer=[early_stopping]", "regularizer.early_stopping.patience=1"
    mixed = recipes(2, *patient, "optimizer.lr=1.0"), recipes(2, *patient)
    together = stack(*itertools.chain(*mixed))
    assert len({r.history.epoch.max() for r in together}) > 1
    assert [bits(r) for r in stack(*mixed[1])] == [bits(r) for r in together[2:]]


def test_a_grid_of_seeds_and_numbers(stack, run, distance):
    """Rates vary slower than seeds, so that the same data come back."""
    given = [[*TINY, f"seed={i}", f"optimizer.lr={r}"] for r in (0.01, 0.1) for i in (0, 1, 2)]
    given = [[*recipe, "trainer.precision=64-true"] for recipe in given]
    for ours, recipe in zip(stack(*given, size=6), given, strict=True):
        apart = distance(ours, run(*recipe))
        assert max(apart.weights, apart.records) < 1e-10


def test_a_member_that_diverges_ends_alone_and_says_where(stack, run):
    sgd = recipes(3, "optimizer=sgd")
    sgd[1].append("optimizer.lr=1e30")
    ours = stack(*sgd)
    assert [r.status for r in ours] == ["finished", "diverged", "finished"]
    theirs = run(*sgd[1])
    assert ours[1].reason == theirs.reason
    assert ours[1].summary.keys() == theirs.summary.keys()
    assert ours[1].history.name.tolist() == theirs.history.name.tolist()


def test_the_folder_is_that_of_an_ordinary_run(stack, run):
    (ours, _), theirs = stack(*recipes(2, "figures=true")), run(*recipes(1, "figures=true")[0])
    names = ["config.yaml", "metadata.json", "metrics.csv", "status.json", "summary.json"]
    names += ["checkpoints/best.ckpt", "checkpoints/last.ckpt"]
    assert all((r.folder / name).exists() for r in (ours, theirs) for name in names)
    assert ours.figure_file.read_bytes().startswith(b"\x89PNG")
    assert ours.run.config.read_text() == theirs.run.config.read_text()
    assert ours.run.metadata().keys() == theirs.run.metadata().keys() | {"stacked"}
    counts = [r.run.metadata()["parameters"] for r in (ours, theirs)]
    assert counts == [4 * 4 + 4 + 4 * 3 + 3] * 2
    saved = [torch.load(r.run.last, weights_only=True) for r in (ours, theirs)]
    assert saved[0].keys() - {"hparams_name"} == saved[1].keys() - {"hparams_name"}
    state, other = (s["optimizer_states"][0] for s in saved)
    assert state["param_groups"] == other["param_groups"]
    assert [s.keys() for s in state["state"].values()] == [
        s.keys() for s in other["state"].values()
    ]
    assert not any(run.figure_file.exists() for run in stack(*recipes(2)))
    x = torch.zeros(1, 4)
    assert torch.allclose(ours.model(x), theirs.model(x), atol=1e-5)


def test_other_loggers_get_each_members_history(stack):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for result in stack(*recipes(2, "logger=[csv,tensorboard]")):
        events = EventAccumulator(str(result.folder / "tensorboard")).Reload()
        for name in ("risk/val", "lr/0"):
            rows = result.history[result.history.name == name]
            told = [(event.step, event.value) for event in events.Scalars(name)]
            assert told == [(s, pytest.approx(v)) for s, v in zip(rows.step, rows.value)]
        assert float(result.summary["risk/test"].value) == pytest.approx(
            events.Scalars("risk/test")[-1].value
        )


class Cut(Exception):
    """Breaks a group off in the middle."""


def cut_off(cfgs, after):
    """Train until so many steps have been taken, then break off without any farewell."""
    from truerisk.sweeps.launcher.stacked_group import StackedGroup

    steps = iter(range(after))

    def tell(taken, done):
        if taken and next(steps, None) is None:
            raise Cut

    with pytest.raises(Cut):
        StackedGroup(cfgs, tell=tell).train()


@pytest.mark.parametrize("after", [0, 7, 17])
@pytest.mark.parametrize(
    "more", [[NOISY], ["regularizer=[ema,early_stopping]", "scheduler=cosine"]]
)
def test_a_group_cut_off_goes_on_to_the_same_numbers(stack, jobs, after, more):
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher.stacked_group import StackedGroup

    given = recipes(3, *more)
    mine = jobs(given)
    cut_off(mine, after)
    StackedGroup(mine).train()
    ended = [RunResult(job.folder) for job in mine]
    assert [bits(r) for r in ended] == [bits(r) for r in stack(*given)]
    assert {r.status for r in ended} == {"finished"}


def test_members_saved_at_different_steps_go_on_in_blocks(stack, jobs):
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher.stacked_group import StackedGroup

    given = recipes(3)
    mine = jobs(given)
    cut_off(mine, 7)
    mine[1].folder.joinpath("checkpoints/last.ckpt").unlink()
    StackedGroup(mine).train()
    assert [bits(RunResult(j.folder)) for j in mine] == [bits(r) for r in stack(*given)]


def test_a_stack_whose_steps_are_compiled_goes_on_to_the_same_bits(compiled, jobs, stack):
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher.stacked_group import StackedGroup

    given = recipes(3)
    mine = jobs(given)
    cut_off(mine, 7)
    StackedGroup(mine[1:]).train()
    StackedGroup(mine[:1]).train()
    assert [bits(RunResult(j.folder)) for j in mine] == [bits(r) for r in stack(*given)]
    assert compiled and all(compiled)


def test_an_ordinary_run_goes_on_with_a_member(jobs, distance, run):
    import truerisk

    given = recipes(2, "optimizer=nadam", "trainer.precision=64-true")
    mine = jobs(given)
    cut_off(mine, 7)
    alone = truerisk.train([f"resume={mine[1].folder}"])
    apart = distance(alone, run(*given[1]))
    assert max(apart.weights, apart.records) < 1e-10


def test_a_signal_saves_every_member(jobs):
    from truerisk.core.errors import Interrupted
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher.stacked_group import StackedGroup

    mine = jobs(recipes(2, "checkpoint_seconds=1000"))
    steps = iter(range(5))

    def tell(taken, done):
        if taken and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        StackedGroup(mine, tell=tell).train()
    results = [RunResult(job.folder) for job in mine]
    assert {(r.status, r.reason) for r in results} == {("interrupted", "SIGTERM")}
    assert all(r.run.last.exists() for r in results)


def test_where_memory_runs_out_fewer_train_at_once(jobs, monkeypatch):
    from truerisk.engine.stacked.backend import StackedBackend
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher import stacked_group

    def limited(runs, host):
        if len(runs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return StackedBackend(runs, host)

    monkeypatch.setattr(stacked_group, "StackedBackend", limited)
    mine = jobs(recipes(5))
    group = stacked_group.StackedGroup(mine)
    group.train()
    assert group.size == 2
    assert {RunResult(job.folder).status for job in mine} == {"finished"}


def test_a_cell_that_cannot_begin_is_refused_alone(jobs):
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher.stacked_group import StackedGroup

    given = recipes(3)
    given[1].append("data.val=1000")
    group = StackedGroup(mine := jobs(given))
    group.train()
    assert list(group.refused) == [mine[1].folder]
    assert [RunResult(mine[i].folder).status for i in (0, 2)] == ["finished"] * 2
