from __future__ import annotations

import math

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator
from truerisk.data import BatchPlan
from truerisk.data.plan import EpochSampler, IndexBlocks

CASES = [
    (n, batch, accumulate, world)
    for n in (1, 7, 40)
    for batch in (1, 4, 100, "full")
    for accumulate in (1, 3)
    for world in (1, 2, 3)
]


@pytest.mark.parametrize(("n", "batch", "accumulate", "world"), CASES)
def test_an_epoch_covers_and_weights_every_sample_once(n, batch, accumulate, world):
    plans = [BatchPlan(n, batch, accumulate, seed=1, rank=r, world=world) for r in range(world)]
    values = torch.randn(n, generator=torch.Generator().manual_seed(0)).double()
    seen = []
    steps = list(zip(*(plan.epoch(2) for plan in plans), strict=True))
    assert len(steps) == plans[0].steps_per_epoch
    for step in steps:
        micro = [m for local in step for m in local]
        used = torch.cat([index for index, share in micro if share > 0])
        assert math.isclose(sum(share for _, share in micro) / world, 1, rel_tol=1e-14)
        mean = sum(share * values[index].mean() for index, share in micro) / world
        assert torch.isclose(mean, values[used].mean(), rtol=1e-12)
        assert all(len(index) for index, _ in micro)
        assert len({len(local) for local in step}) == 1
        seen += used.tolist()
    assert sorted(seen) == list(range(n))


def test_every_step_takes_what_was_asked_for():
    steps = list(BatchPlan(25, 4, accumulate=2).epoch(0))
    assert [[len(i) for i, _ in step] for step in steps] == [[4, 4], [4, 4], [4, 4], [1]]
    assert [[s for _, s in step] for step in steps] == [[0.5, 0.5]] * 3 + [[1.0]]


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_resuming_gives_the_tail(start):
    plan = BatchPlan(25, 4, accumulate=2, seed=3)
    whole, tail = list(plan.epoch(5)), list(plan.epoch(5, start))
    flat = [[i.tolist() for i, _ in step] for step in whole[start:]]
    assert [[i.tolist() for i, _ in step] for step in tail] == flat


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return BatchPlan(50, 10, seed=seed).order(epoch).tolist()

    state = torch.get_rng_state()
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9
    assert torch.equal(torch.get_rng_state(), state)


def test_processes_share_the_same_global_batches():
    one = [i for step in BatchPlan(20, 6, seed=4).epoch(0) for i, _ in step]
    two = [
        [i for step in BatchPlan(20, 6, seed=4, rank=r, world=2).epoch(0) for i, _ in step]
        for r in (0, 1)
    ]
    for whole, *parts in zip(one, *two, strict=True):
        assert sorted(whole.tolist()) == sorted(torch.cat(parts).tolist())


def test_the_full_batch_is_taken_in_order():
    plan = BatchPlan(5, "full")
    assert [[i.tolist() for i, _ in step] for step in plan.epoch(7)] == [[[0, 1, 2, 3, 4]]]
    assert [len(i) for i, _ in next(BatchPlan(5, "full", accumulate=2).epoch(0))] == [3, 2]


@pytest.mark.parametrize("batch", [0, -3, "half", True, 1.5, None])
def test_impossible_batch_sizes_are_refused(batch):
    with pytest.raises(ConfigError, match=r"data\.batch_size"):
        BatchPlan(10, batch)


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, True])
def test_impossible_accumulation_is_refused(accumulate):
    with pytest.raises(ConfigError, match=r"step\.accumulate"):
        BatchPlan(10, 2, accumulate=accumulate)


def test_an_empty_split_is_refused():
    with pytest.raises(ConfigError, match="training split is empty"):
        BatchPlan(0, 2)


@pytest.mark.parametrize("n", [4, 5, 20, 21, 41, 61, 90])
@pytest.mark.parametrize(("batch", "accumulate"), [(20, 1), (10, 2), (5, 4), (89, 1), ("full", 3)])
@pytest.mark.parametrize("world", [1, 2])
def test_no_micro_batch_is_smaller_than_the_least(n, batch, accumulate, world):
    """Samples that are left join the batch before; all others are cut as ever."""
    least = 2 * world
    if batch == "full" and math.ceil(n / accumulate) < least:
        pytest.skip("refused")
    plans = [BatchPlan(n, batch, accumulate, 0, r, world, least=least) for r in range(world)]
    plain = BatchPlan(n, batch, accumulate)
    steps = [list(plan.epoch(3)) for plan in plans]
    sizes = [
        [sum(len(s[i][j][0]) for s in steps) for j in range(len(steps[0][i]))]
        for i in range(plans[0].steps_per_epoch)
    ]
    assert min(min(step) for step in sizes) >= least
    seen = torch.cat([index for own in steps for step in own for index, _ in step])
    assert sorted(seen.tolist()) == list(range(n))
    for own in steps:
        for step in own:
            assert all(len(index) >= 2 for index, _ in step)
    if plain.smallest >= least:
        alone = BatchPlan(n, batch, accumulate, least=least)
        assert repr(list(alone.epoch(3))) == repr(list(plain.epoch(3)))


def test_batches_below_the_least_are_refused():
    with pytest.raises(ConfigError, match=r"data\.batch_size to 2 or more"):
        BatchPlan(50, 1, least=2)


@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_the_steps_of_an_epoch_are_the_same_however_many_are_cut_at_once(
    at_once, start, monkeypatch
):
    monkeypatch.setattr("truerisk.data.plan.STEPS_AT_ONCE", at_once)
    plan = BatchPlan(47, 4, accumulate=2, seed=3)
    order = torch.randperm(47, generator=named_generator(3, "order", 2))
    steps = [torch.cat([index for index, _ in step]) for step in plan.epoch(2, start)]
    assert torch.equal(torch.cat(steps), order[8 * start :])
    assert {index.dtype for step in plan.epoch(2) for index, _ in step} == {torch.int64}
    assert list(EpochSampler(plan)) == plan.order(0).tolist()


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("indices", [range(10), range(2, 10, 3), range(5, 3, 8)], ids=str)
def test_blocks_of_indices_are_those_of_a_tensor_that_is_cut(indices, size):
    blocks, cut = IndexBlocks(indices, size), torch.tensor(indices, dtype=torch.long).split(size)
    assert len(blocks) == len(cut)
    assert all(map(torch.equal, blocks, cut))
    assert all(map(torch.equal, blocks[-2:], cut[-2:]))


@pytest.mark.parametrize("kept", ["true", "false"])
def test_a_run_is_the_same_however_many_steps_are_read_at_once(tiny, tmp_path, monkeypatch, kept):
    given = [f"data.in_memory={kept}"]
    whole = tiny(tmp_path / "whole", given)
    monkeypatch.setattr("truerisk.engine.lightning.STEPS_AT_ONCE", 2)
    assert tiny(tmp_path / "parts", given).summary == whole.summary
