"""Weights decay where it is said that they do, and nowhere else: told by those without gradient."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import pytorch_optimizer
import torch
from torch import nn

from truerisk.config.compose import compose
from truerisk.core.batch import Forward
from truerisk.core.errors import ConfigError
from truerisk.optimizer import needs_of, parameter_groups
from truerisk.regularizer import L2, MaxNorm

CLASSES = {
    name: kind
    for name, kind in vars(pytorch_optimizer).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and "weight_decay" in inspect.signature(kind).parameters
}
IGNORING = {
    *("AdamP", "AdamWSN", "Grams", "LaProp", "Prodigy", "RAdam", "SGDP", "SGDSaI", "TAM"),
}
"""Those of pytorch_optimizer 4.1 that leave coupled decay out."""
OTHERS = {
    *(
        "AdaLOMO",
        "AdamMini",
        "BSAM",
        "DeMo",
        "FAdam",
        "LoRARite",
        "Ranger21",
        "SaRA",
        "ScheduleFreeWrapper",
    ),
}
"""Those that take more than parameters, no double precision, pairs of factors, or freeze most."""
UNLOADABLE = {"AdaShift", "Conda", "SCION", "SCIONLight", "ScalableShampoo"}
"""Those refused for their state."""
MATRICES = {"AdaGO", "AdaMuon", "DistributedMuon", "Muon", "MuonClip", "NorMuon", "SpectralSphere"}


class Half(nn.Module):
    """Weights of which the first do not reach the output."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.rand(4, 4, generator=generator).double() + 0.5)

    def forward(self):
        return (self.w[1:] - 0.1).square().sum()


def unreached(kind, **numbers):
    """The weights without gradient, after some steps from 0.5 to 1.5; None where it is refused."""
    model = Half()
    factory = partial(kind, **numbers)
    try:
        optimizer = factory(parameter_groups(model, [], factory))
    except ConfigError as error:
        assert "optimizer.weight_decay is 0.3" in str(error)
        return None
    needs = needs_of(kind)
    if needs.train_eval_modes:
        optimizer.train()

    @torch.enable_grad()
    def look():
        optimizer.zero_grad()
        value = model()
        value.backward(create_graph=needs.create_graph)
        return value

    for _ in range(9):
        optimizer.step(look) if needs.closure else (look(), optimizer.step())
    return model.w.detach()[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decoupled", [True, False])
def test_weight_decay_acts_or_is_refused(decoupled):
    for name in sorted(set(CLASSES) - OTHERS - UNLOADABLE - MATRICES):
        options = {"weight_decay": 0.3}
        if "weight_decouple" in inspect.signature(CLASSES[name]).parameters:
            options["weight_decouple"] = decoupled
        decayed = unreached(CLASSES[name], **options)
        ignored = name == "DAdaptAdaGrad" if decoupled else name in IGNORING
        assert (decayed is None) == ignored, name
        if decayed is not None:
            still = unreached(CLASSES[name], **{**options, "weight_decay": 0.0})
            assert not torch.equal(decayed, still), name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("d_coef", 2.0), ("growth_rate", 1.5), ("d0", 1e-3), ("lr", 0.5), ("beta3", 0.5)),
        *(("safeguard_warmup", True), ("bias_correction", True)),
    ],
)
def test_numbers_of_prodigys_one_estimate_are_not_a_groups(key, value):
    rules = [{"max_ndim": 1, key: value}]
    with pytest.raises(ConfigError, match=f"set '{key}'.*set optimizer.{key} instead"):
        parameter_groups(nn.Linear(2, 2), rules, pytorch_optimizer.Prodigy)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("DAdaptAdam", {"lr": 0.1}, "set 'lr', and DAdaptAdam with these numbers does nothing"),
        ("RAdam", {"weight_decay": 0.1}, ""),
        ("Prodigy", {"weight_decay": 0.1}, ""),
        ("Prodigy", {"eps": 0.1}, ""),
        ("AdaGC", {"weight_decay": 0.1, "lr": 0.3}, ""),  # one norm of all gradients couples them
    ],
)
def test_numbers_of_a_group_act_on_it_alone(name, numbers, message):
    kind = getattr(pytorch_optimizer, name)
    rules = [{"max_ndim": 1, **numbers}]
    if not message:
        assert len(parameter_groups(nn.Linear(2, 2), rules, kind)) == 2
        return
    with pytest.raises(ConfigError, match=message):
        parameter_groups(nn.Linear(2, 2), rules, kind)


def test_nothing_is_drawn_by_looking_beforehand():
    model, before = nn.Linear(2, 2), torch.get_rng_state()
    rules = [{"max_ndim": 1, "weight_decay": 0.0}]
    parameter_groups(model, rules, partial(torch.optim.AdamW, weight_decay=0.2))
    assert torch.equal(before, torch.get_rng_state())


def test_scales_over_two_axes_do_not_decay():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.LayerNorm([4, 6]), nn.Flatten(), nn.Linear(24, 2))
    rules = compose(["param_groups=no_decay"]).param_groups.rules
    rest, free = parameter_groups(model, rules, partial(torch.optim.AdamW, weight_decay=0.1))
    assert rest["param_names"] == ["0.weight", "3.weight"]
    assert free["param_names"] == ["0.bias", "1.weight", "1.bias", "3.bias"]
    params = dict(model.named_parameters())
    penalty = L2(1.0, [{"max_ndim": 1, "coefficient": 0}])
    penalty.edit_model(model)
    expected = sum(0.5 * params[name].square().sum() for name in rest["param_names"])
    torch.testing.assert_close(penalty.penalty(Forward(params, None, None, None)), expected)
    bounded = MaxNorm(0.1, [{"max_ndim": 1, "bound": None}])
    bounded.edit_model(model)
    with torch.no_grad():
        bounded.project(params)
    assert torch.equal(model[1].weight, torch.ones(4, 6))
    assert model[3].weight.norm(dim=1).max() < 0.1001
