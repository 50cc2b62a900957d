"""Four streams of randomness: each moves its own part, and nobody else's."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from truerisk.core import rng
from truerisk.core.seeds import derive_streams

RECIPE = ["data=iris", "data.batch_size=20", "model.width=8", "trainer.max_epochs=3"]
NOISY = [*RECIPE, "regularizer=[dropout,mixup,input_noise]"]


def draws():
    """One draw of each global generator."""
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_a_stream_depends_on_its_seed_and_names_alone():
    def drawn(*key):
        return torch.rand(4, generator=rng.named_generator(*key)).tolist()

    assert drawn(0, "split") == drawn(0, "split")
    keys = [(0, "split"), (1, "split"), (0, "noise"), (0, "order", 0), (0, "order", 1), (0,)]
    assert len({tuple(drawn(*key)) for key in keys}) == len(keys)
    before = draws()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = draws()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    drawn(7, "x")
    assert draws() == expected != before


def test_streams_of_neighbouring_seeds_are_uncorrelated():
    values = torch.stack(
        [torch.rand(2000, generator=rng.named_generator(s, "order")) for s in range(8)]
    )
    correlations = torch.corrcoef(values) - torch.eye(8)
    assert correlations.abs().max() < 4 / 2000**0.5


def test_state_survives_safe_loading():
    file = io.BytesIO()
    torch.save(rng.get_state(), file)
    expected = draws()
    draws()
    file.seek(0)
    rng.set_state(torch.load(file, weights_only=True))
    assert draws() == expected


def test_state_holds_half_a_pair_of_gaussians():
    """NumPy's and Python's legacy generators keep the second normal draw for the next call."""
    np.random.seed(0)
    random.seed(0)
    np.random.randn(1), random.gauss(0, 1)
    saved = rng.get_state()
    expected = np.random.randn(2).tolist(), random.gauss(0, 1)
    rng.set_state(saved)
    assert (np.random.randn(2).tolist(), random.gauss(0, 1)) == expected


def test_torch_is_seeded_as_by_itself_without_its_stack_being_formatted(monkeypatch):
    """`torch.manual_seed` takes a thousand times as long for devices that are not there."""
    torch.manual_seed(7)
    drawn = torch.rand(3)
    monkeypatch.setattr("traceback.format_stack", lambda: pytest.fail("the stack was formatted"))
    rng.seed_torch(7)
    assert torch.equal(torch.rand(3), drawn)
    with rng.fork_seeded(7):
        assert torch.equal(torch.rand(3), drawn)


def test_isolated_seeds_inside_and_leaves_no_trace():
    saved = rng.get_state()
    with rng.fork_seeded(5):
        first = draws()
    after = draws()
    rng.set_state(saved)
    assert draws() == after
    with pytest.raises(KeyError), rng.fork_seeded(5):
        assert draws() == first
        raise KeyError
    with rng.fork_seeded(6):
        assert draws() != first


# --- runs -----------------------------------------------------------------------------------------


def weights_of(result):
    return torch.load(result.run.last, weights_only=True)["state_dict"]


def same(a, b):
    weights, others = weights_of(a), weights_of(b)
    return a.history.equals(b.history) and all(torch.equal(weights[k], others[k]) for k in weights)


@pytest.fixture(scope="module")
def first(run):
    return run(*NOISY)


def test_the_same_seeds_give_the_same_bits(run, first):
    assert same(run(*NOISY), first)
    assert same(run(*NOISY, "seed=0"), first)
    assert not same(run(*NOISY, "seed=1"), first)


def test_the_caller_is_not_noticed_and_notices_nothing(run, first):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draws()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    result = run(*NOISY)
    assert draws() == expected
    assert same(result, first)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_initializing_and_splitting_do_not_touch_the_caller(assembled):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    recipe = assembled(*NOISY, "data=mnist1d", "initializer=lsuv", "data.source.num_samples=200")
    list(recipe.plan().epoch(0))
    assert torch.equal(torch.rand(3), expected)


def parts(recipe):
    """What each stream decides: weights, split and samples, order of the batches."""
    order = [index.tolist() for step in recipe.plan().epoch(0) for index, _ in step]
    split = [s.x.tolist() for s in (recipe.data.train, recipe.data.val, recipe.data.test)]
    weights = [p.tolist() for p in recipe.model.parameters()]
    return {"init": weights, "data": split, "order": order}


@pytest.mark.parametrize("stream", ["init", "data", "order", "noise"])
def test_a_stream_moves_its_own_part_only(assembled, stream):
    before = parts(assembled(*NOISY))
    after = parts(assembled(*NOISY, f"seed.{stream}=12345"))
    assert {name for name in before if before[name] != after[name]} == {stream} - {"noise"}


def test_order_takes_the_same_samples_another_way(assembled):
    plans = [assembled(*RECIPE, f"seed.order={s}").plan() for s in (1, 2)]
    epochs = [
        [torch.cat([i for step in p.epoch(e) for i, _ in step]) for e in (0, 1)] for p in plans
    ]
    for epoch in [e for pair in epochs for e in pair]:
        assert sorted(epoch.tolist()) == list(range(90))
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert not torch.equal(epochs[0][0], epochs[0][1])


@pytest.mark.parametrize("stream", ["init", "data", "order", "noise"])
def test_what_a_stream_changes_in_a_run(run, first, series, stream):
    """The risks of the initial weights depend on ``init`` and ``data``; all later ones on all."""
    other = run(*NOISY, f"seed.{stream}=12345")
    for name in ("risk/train", "risk/val"):
        mine, theirs = series(first, name), series(other, name)
        assert (mine[0] == theirs[0]) == (stream in ("order", "noise"))
        assert mine[3] != theirs[3]


def test_noise_does_nothing_where_there_is_none(run):
    assert same(run(*RECIPE, "seed.noise=1"), run(*RECIPE, "seed.noise=2"))


def test_streams_of_a_base_are_those_set_by_hand(run):
    by_hand = [f"seed.{k}={v}" for k, v in derive_streams(4)._asdict().items()]
    assert same(run(*RECIPE, "seed=4"), run(*RECIPE, *by_hand))
