"""Mixup, cutmix and input noise."""

import pytest
import torch
from scipy.stats import beta
from torch import nn

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.objective import Objective
from truerisk.regularizer import CutMix, InputNoise, Mixup
from truerisk.regularizer.batch_edits import box_share, draw_box

SHAPES = [(1, 40), (3, 8, 9)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batch(shape, n=12, dtype=torch.float64):
    return Batch(torch.randn(n, *shape, dtype=dtype), torch.arange(n))


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_inputs_are_left_alone_and_the_global_generator_drives(kind):
    plain = batch((2, 10))
    kept = plain.x.clone()
    torch.manual_seed(5)
    first = kind(1.0).edit_batch(plain)
    torch.manual_seed(5)
    second = kind(1.0).edit_batch(plain)
    third = kind(1.0).edit_batch(plain)
    assert torch.equal(plain.x, kept)
    assert torch.equal(first.x, second.x) and torch.equal(first.share, second.share)
    assert not torch.equal(second.other, third.other)


@pytest.mark.parametrize("shape", [(4,), *SHAPES])
def test_mixup_is_the_stated_combination(shape):
    plain = batch(shape)
    mixed = Mixup(1.0).edit_batch(plain)
    assert mixed.share.shape == () and 0 <= float(mixed.share) <= 1
    assert sorted(mixed.other.tolist()) == plain.y.tolist()
    assert torch.equal(mixed.y, plain.y)
    expected = mixed.share * plain.x + (1 - mixed.share) * plain.x[mixed.other]
    torch.testing.assert_close(mixed.x, expected)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_proportions_have_the_moments_of_the_beta_distribution(alpha):
    draws = torch.tensor([Mixup(alpha).draw_share() for _ in range(20_000)], dtype=torch.float64)
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.012)
    assert float(draws.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_mixup_keeps_the_expected_input():
    plain, mixup = batch((3,), n=6), Mixup(1.0)
    mean = torch.stack([mixup.edit_batch(plain).x for _ in range(4000)]).mean(0)
    expected = (plain.x + plain.x.mean(0)) / 2
    torch.testing.assert_close(mean, expected, atol=0.06, rtol=0)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_the_mixed_loss_is_the_loss_at_the_mixed_target(kind):
    x, y = torch.randn(9, 2, 6, dtype=torch.float64), torch.arange(9) % 3
    mixed = kind(1.0).edit_batch(Batch(x, y))
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    losses = Objective(model, nn.CrossEntropyLoss(reduction="none"))(None, mixed).losses
    target = mixed.share * nn.functional.one_hot(y, 3) + (1 - mixed.share) * nn.functional.one_hot(
        mixed.other, 3
    )
    expected = nn.functional.cross_entropy(model(mixed.x), target, reduction="none")
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_cutmix_pastes_one_box_and_counts_it(shape):
    plain, cutmix = batch(shape), CutMix(1.0)
    for _ in range(50):
        mixed = cutmix.edit_batch(plain)
        partner = plain.x[mixed.other]
        pasted = (mixed.x != plain.x)[mixed.other != plain.y][:, 0]
        assert torch.equal(mixed.x, torch.where(mixed.x == plain.x, plain.x, partner))
        if len(pasted):
            assert torch.equal(pasted, pasted[:1].expand_as(pasted))
            share = 1 - pasted[0].double().mean()
            torch.testing.assert_close(mixed.share, share)
            sides = [pasted[0].any(d).sum() for d in range(pasted[0].ndim)]
            if len(sides) == 2:
                assert pasted[0].sum() == sides[0] * sides[1]


@pytest.mark.parametrize("size", [(40,), (16, 24)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 1.0])
def test_a_box_is_as_large_as_asked_unless_it_hangs_over(size, share):
    areas = torch.tensor([box_share(draw_box(size, share), size) for _ in range(500)])
    assert float(areas.max()) == pytest.approx(share, abs=0.04)
    assert float(areas.min()) >= 0
    corners = {tuple(s.start for s in draw_box(size, 0.1)) for _ in range(2000)}
    assert len(corners) > 20


def test_cutmix_covers_every_place():
    hits = torch.zeros(20)
    for _ in range(2000):
        (inside,) = draw_box((20,), 0.3)
        hits[inside] += 1
    assert float(hits.min()) > 200


def test_cutmix_refuses_feature_vectors():
    with pytest.raises(ConfigError, match=r"regularizer=cutmix.*\(4,\).*mixup"):
        CutMix(1.0).edit_batch(batch((4,)))


def test_a_batch_is_mixed_once():
    mixed = Mixup(1.0).edit_batch(batch((2, 6)))
    with pytest.raises(ConfigError, match="mixup and cutmix"):
        CutMix(1.0).edit_batch(mixed)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("alpha", [0, -1.0, "big"])
def test_alpha_must_be_positive(kind, alpha):
    with pytest.raises(ConfigError, match=rf"{kind.key}\.alpha"):
        kind(alpha)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_regression_targets_and_precision(kind):
    x, y = torch.randn(4, 1, 6), torch.randn(4, 2)
    mixed = kind(1.0).edit_batch(Batch(x, y))
    assert mixed.other.shape == (4, 2)
    assert mixed.x.dtype == mixed.share.dtype == torch.float32


def test_input_noise_has_its_standard_deviation():
    plain = Batch(torch.full((200, 100), 3.0), torch.zeros(200))
    noisy = InputNoise(0.5).edit_batch(plain)
    noise = noisy.x - plain.x
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    assert float(plain.x.std()) == 0 and noisy.y is plain.y


def test_input_noise_keeps_a_mixed_target():
    mixed = Mixup(1.0).edit_batch(batch((3,)))
    noisy = InputNoise(0.1).edit_batch(mixed)
    assert noisy.other is mixed.other and noisy.share is mixed.share


def test_negative_noise_is_refused():
    with pytest.raises(ConfigError, match=r"regularizer\.input_noise\.std"):
        InputNoise(-0.1)


@pytest.mark.parametrize("alpha", [1e-1, 1e-2, 9e-3, 1e-3, 1e-4, 1e-5])
def test_small_alpha_mixes_almost_nothing(alpha):
    """The share of draws below 1e-6 or above 1 − 1e-6 is that of Beta(α, α), and ½ has none."""
    n, mixup = 4000, Mixup(alpha)
    draws = torch.tensor([mixup.draw_share() for _ in range(n)], dtype=torch.float64)
    ends = 2 * beta(alpha, alpha).cdf(1e-6)
    got = float(((draws < 1e-6) | (draws > 1 - 1e-6)).double().mean())
    assert got == pytest.approx(ends, abs=4 * (ends * (1 - ends) / n) ** 0.5 + 1e-12)
    assert not (draws == 0.5).any()
    assert float((draws > 0.5).double().mean()) == pytest.approx(0.5, abs=0.035)
