"""The multi-class hinge loss against scikit-learn and torch."""

import pytest
import torch
from sklearn.metrics import hinge_loss
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.loss import Hinge, Squared, adapt_loss


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(50, 4, dtype=torch.float64), torch.arange(50) % 4


def test_mean_is_sklearns_crammer_singer_loss(batch):
    scores, labels = batch
    expected = hinge_loss(labels.numpy(), scores.numpy())
    assert float(Hinge()(scores, labels).mean()) == pytest.approx(expected, rel=1e-12)


def test_two_classes_equal_the_binary_hinge_on_the_difference_of_scores(batch):
    scores, labels = batch[0][:, :2], batch[1] % 2
    signs = 2 * labels - 1
    expected = (1 - signs * (scores[:, 1] - scores[:, 0])).clamp(min=0)
    torch.testing.assert_close(Hinge()(scores, labels), expected)
    weston_watkins = 2 * nn.MultiMarginLoss(reduction="none")(scores, labels)
    torch.testing.assert_close(Hinge()(scores, labels), weston_watkins)


def test_margin_shifts_the_kink(batch):
    scores, labels = batch
    wide, narrow = Hinge(100.0)(scores, labels), Hinge(1e-9)(scores, labels)
    lead = scores.gather(1, labels[:, None])[:, 0]
    rival = torch.stack(
        [s[torch.arange(4) != y].max() for s, y in zip(scores, labels, strict=True)]
    )
    torch.testing.assert_close(wide, 100 + rival - lead)
    wrong = scores.argmax(1) != labels
    assert torch.equal(narrow > 1e-8, wrong)


def test_gradient_moves_own_score_and_strongest_rival_only(batch):
    scores, labels = batch
    gradient = torch.func.grad(lambda s: Hinge()(s, labels).sum())(scores)
    active = Hinge()(scores, labels) > 0
    assert torch.equal(gradient.gather(1, labels[:, None])[:, 0], -active.double())
    assert torch.equal((gradient != 0).sum(1), 2 * active)


def test_maps_and_differentiates_under_vmap(batch):
    scores, labels = batch
    stacked = torch.stack([scores, 2 * scores])
    mapped = torch.vmap(lambda s: Hinge()(s, labels))(stacked)
    torch.testing.assert_close(mapped[1], Hinge()(2 * scores, labels))


@pytest.mark.parametrize("margin", [0, -1.0, float("nan")])
def test_margin_must_be_positive(margin):
    with pytest.raises(ConfigError, match=r"loss\.margin"):
        Hinge(margin)


def test_squared_is_the_distance_from_the_one_hot_class(batch):
    scores, labels = batch
    hot = nn.functional.one_hot(labels, 4).double()
    torch.testing.assert_close(Squared()(scores, labels), (scores - hot).square().sum(1))
    mapped = torch.vmap(lambda s: Squared()(s, labels))(torch.stack([scores, 2 * scores]))
    torch.testing.assert_close(mapped[1], Squared()(2 * scores, labels))


def test_squared_means_the_nearest_probabilities(batch):
    """No other point of the simplex is nearer: the scores lead away from all its corners."""
    scores = batch[0]
    p = Squared().log_probabilities(scores).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(50, dtype=torch.float64))
    away = ((scores - p)[:, None] * (torch.eye(4, dtype=torch.float64) - p[:, None])).sum(2)
    assert float(away.max()) <= 1e-12
    assert torch.equal(p.argmax(1), scores.argmax(1))
    torch.testing.assert_close(Squared().log_probabilities(p).exp(), p)


def test_squared_has_its_least_risk_at_the_probabilities():
    fitted = adapt_loss(Squared(), "classification", 3)
    share, y = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    risk = float(fitted(share.expand(10, 3), y).mean())
    assert risk == pytest.approx(1 - 0.25 - 0.09 - 0.04)
    for step in 0.01 * torch.eye(3):
        assert float(fitted((share + step).expand(10, 3), y).mean()) > risk
    assert fitted.compute_errors(torch.tensor([[0.9, 2.0, -3.0]]), torch.tensor([1])).item() == 0
