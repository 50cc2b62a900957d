"""Losses of one's own before training: each sample's its own, with a gradient, in floats."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.loss import adapt_loss
from truerisk.loss.surrogate import check_fit
from truerisk.loss.trial import check_gradient, describe_untrained, loss_name

CONF = Path(__file__).parents[2] / "conf" / "loss"

QUANTITIES = torch.linspace(-1, 3, 40)[
    torch.randperm(40, generator=torch.Generator().manual_seed(0))
]
LABELS = torch.arange(30) % 3


def squeezed(o, y):
    return ((o - y.squeeze()) ** 2).mean(1)


def first_column(o, y):
    return ((o - y[:, 0]) ** 2).mean(1)


def first_output(o, y):
    return ((o[:, 0] - y) ** 2).mean(1)


def shared(o, y):
    losses = F.cross_entropy(o, y, reduction="none")
    return losses / losses.sum() * len(losses)


def centred(o, y):
    losses = F.cross_entropy(o, y, reduction="none")
    return losses - losses.mean()


def divided(o, y):
    return F.cross_entropy(o, y, reduction="none") / len(y)


def summed_up(o, y):
    return F.cross_entropy(o, y, reduction="none").cumsum(0)


def balanced(o, y):
    return F.cross_entropy(o, y, reduction="none") / torch.bincount(y, minlength=3)[y]


@pytest.mark.parametrize(
    ("loss", "cause"),
    [
        (squeezed, "sample 0 changes with the others' targets"),
        (first_column, "sample 0 changes with the others' targets"),
        (first_output, "sample 0 changes with the others' outputs"),
        (shared, "sample 0 changes with the others' outputs"),
        (centred, "sample 0 changes with the others' outputs"),
        (divided, "sample 0 changes with how many"),
        (summed_up, "sample 4 changes with the others' outputs"),
        (balanced, "sample 0 changes with the others' targets"),
    ],
)
def test_a_loss_of_several_samples_is_refused(loss, cause):
    classes = "cross_entropy" in loss.__code__.co_names
    task, y = ("classification", LABELS) if classes else ("regression", QUANTITIES[:, None])
    with pytest.raises(ConfigError, match=f"^loss={loss.__name__}: .*{cause}.*\n.*test_trial.py"):
        check_fit(adapt_loss(loss, task, 3 if classes else 1), y, None)


class Drawn(nn.Module):
    """Label smoothing of a random amount, by torch's generator and by one of its own."""

    def __init__(self):
        super().__init__()
        self.draw = torch.Generator().manual_seed(1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, o, y):
        self.calls += 1
        share = torch.rand(len(o)) + torch.rand(len(o), generator=self.draw)
        losses = F.cross_entropy(o, y, reduction="none") * share
        return F.dropout(losses, 0.5, self.training)


def test_a_loss_that_draws_passes_and_nothing_of_it_moves():
    loss = Drawn()
    fitted = adapt_loss(loss, "classification", 3)
    calls, drawn = loss.calls.clone(), loss.draw.get_state()
    before = torch.get_rng_state()
    check_fit(fitted, LABELS, None)
    check_gradient(fitted)
    assert torch.equal(before, torch.get_rng_state())
    assert loss.calls == calls and torch.equal(loss.draw.get_state(), drawn)


class Keeping(nn.Module):
    """It counts its calls, beside what no copy can be made of."""

    def __init__(self):
        super().__init__()
        self.library, self.lock, self.inner = F, threading.Lock(), nn.Module()
        self.inner.lock, self.inner.seen = threading.Lock(), []
        self.calls, self.sizes = 0, []
        self.register_buffer("total", torch.zeros(()))

    def forward(self, o, y):
        with self.lock:
            self.calls += 1
            self.total += len(o)
            self.sizes.append(len(o))
            self.inner.seen.append(y)
        return self.library.cross_entropy(o, y, reduction="none")


def test_a_loss_that_cannot_be_copied_whole_keeps_nothing_of_a_trial():
    loss = Keeping()
    fitted = adapt_loss(loss, "classification", 3)
    check_fit(fitted, LABELS, None)
    check_gradient(fitted)
    assert fitted.loss is loss and loss.total == 0 and loss.total.dtype == torch.float32
    assert (loss.calls, loss.sizes, loss.inner.seen) == (0, [], [])


class Levels(nn.Module):
    """Its numbers are single precision, and its matrix product takes no other."""

    def __init__(self):
        super().__init__()
        self.table = [torch.tensor([[2.0]])]

    def forward(self, o, y):
        return ((o @ self.table[0] - y) ** 2).squeeze(1)


def of_shares(o, y):
    assert bool(((o >= 0) & (o <= 1)).all())
    return F.binary_cross_entropy(o, (y > 0).to(o.dtype), reduction="none")


def log_of_rate(o, y):
    return (o.log() - y) ** 2


@pytest.mark.parametrize("loss", [Levels(), of_shares, log_of_rate])
def test_a_loss_of_certain_numbers_passes(loss):
    check_fit(adapt_loss(loss, "regression", 1), QUANTITIES[:, None], None)


def test_tokens_are_tried_as_sequences():
    def mixed(o, y):
        return F.cross_entropy(o, y, reduction="none") - o.mean()

    def plain(o, y):
        return F.cross_entropy(o, y, reduction="none")

    y = torch.arange(60).reshape(10, 6) % 5
    check_fit(adapt_loss(plain, "next_token", 5), y, None)
    with pytest.raises(ConfigError, match="sample 0 changes with the others' outputs"):
        check_fit(adapt_loss(mixed, "next_token", 5), y, None)


def test_what_training_targets_alone_show_is_told_with_its_line():
    def picky(o, y):
        if y.any():
            raise ValueError("zeros only")
        return ((o - y) ** 2).squeeze(1)

    said = r"loss=picky fails .*zeros only\n.*in picky: raise ValueError"
    with pytest.raises(ConfigError, match=said):
        check_fit(adapt_loss(picky, "regression", 1), QUANTITIES[:, None], None)


def test_whole_numbers_are_refused():
    def errors(o, y):
        return (o.argmax(-1) != y).long()

    with pytest.raises(ConfigError, match=r"loss=errors returns int64, .*\.to\(outputs\.dtype\)"):
        adapt_loss(errors, "classification", 3)


def test_a_loss_without_a_gradient_is_refused():
    def cut(o, y):
        return F.cross_entropy(o.detach(), y, reduction="none")

    fitted = adapt_loss(cut, "classification", 3)
    check_fit(fitted, LABELS, None)  # an optimizer that needs none may lower it
    with pytest.raises(ConfigError, match=r"loss=cut returns numbers without a gradient.*\n.*cut$"):
        check_gradient(fitted)


def test_parameters_of_a_loss_are_told_to_stay():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))
            self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)

        def forward(self, o, y):
            return F.cross_entropy(o * self.temperature, y, reduction="none")

    (line,) = describe_untrained(adapt_loss(Tempered(), "classification", 3))
    assert line.startswith("loss=Tempered: its parameters (temperature) are not trained")
    weighted = nn.CrossEntropyLoss(reduction="none", weight=torch.ones(3))
    assert describe_untrained(adapt_loss(weighted, "classification", 3)) == []


def test_every_loss_is_named_by_its_option():
    """As the configuration gives it, and not by torch's class."""
    for file in sorted(CONF.glob("*.yaml")):
        path = OmegaConf.load(file)._target_
        assert loss_name(get_object(path)()) == file.stem
