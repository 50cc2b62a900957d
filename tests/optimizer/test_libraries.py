"""Every optimizer of pytorch_optimizer by name: saved, loaded and compared, or refused before."""

from __future__ import annotations

import inspect
import io

import pytest
import pytorch_optimizer
import torch
from torch import nn

from truerisk import assemble
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.engine.host import Host
from truerisk.engine.precision import choose_device
from truerisk.optimizer import needs_of, parameter_groups

CLASSES = {
    name: kind
    for name, kind in vars(pytorch_optimizer).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
}
UNLOADABLE = {
    "AdaShift": "collections.deque",
    "Conda": "GaLoreProjector",
    "SCION": "LMONorm",
    "SCIONLight": "LMONorm",
    "ScalableShampoo": "PreConditioner",
}
ARGUMENTS = {
    *("BSAM", "FriendlySAM", "GSAM", "LookSAM", "Lookahead", "Magma", "OrthoGrad", "PCGrad"),
    *("Ranger21", "SAM", "SafeFP16Optimizer", "ScheduleFreeWrapper", "TRAC", "WSAM"),
}
"""Those around another optimizer, or with an argument that has no default."""
BUILT_OTHERWISE = {
    *("AdaGO", "AdaLOMO", "AdaMuon", "AdamMini", "DeMo", "DistributedMuon", "LOMO", "Muon"),
    *("MuonClip", "NorMuon"),
}
"""Those that take a whole model, groups marked ``use_muon``, or a package of their own."""
pytestmark = pytest.mark.filterwarnings("ignore")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def descend(model, optimizer, steps):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(12, 5, generator=generator)
    y = torch.randint(3, (12,), generator=generator)
    needs = needs_of(type(optimizer))
    torch.manual_seed(1)
    if needs.train_eval_modes:
        optimizer.train()

    @torch.enable_grad()
    def look():
        for p in model.parameters():
            p.grad = None
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward(create_graph=needs.create_graph)
        return loss

    for _ in range(steps):
        optimizer.step(look) if needs.closure else (look(), optimizer.step())


def test_each_goes_on_from_what_was_saved_or_is_refused():
    refused, differing = {}, []
    for name in sorted(set(CLASSES) - ARGUMENTS - BUILT_OTHERWISE - {"SpectralSphere"}):
        model, again = network(), network()
        try:
            optimizer = CLASSES[name](parameter_groups(model, [], CLASSES[name]))
        except ConfigError as error:
            refused[name] = str(error)
            continue
        descend(model, optimizer, 3)
        file = io.BytesIO()
        torch.save({"weights": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        again.load_state_dict(saved["weights"])
        second = CLASSES[name](parameter_groups(again, [], CLASSES[name]))
        second.load_state_dict(saved["optimizer"])
        descend(model, optimizer, 3)
        descend(again, second, 3)
        pairs = zip(model.parameters(), again.parameters(), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            differing.append(name)
    assert differing == [] and refused.keys() == UNLOADABLE.keys()
    for name, kind in UNLOADABLE.items():
        assert f"{name} keeps a " in refused[name] and kind in refused[name]


@pytest.mark.parametrize("name", ["AdamMini", "LOMO", "Muon", "DeMo"])
def test_what_takes_no_groups_of_parameters_is_refused_in_a_line(name):
    target = f"optimizer._target_=pytorch_optimizer.{name}"
    recipe = assemble.assemble(compose(["data=iris", "optimizer=custom", target]))
    with pytest.raises(ConfigError, match=rf"optimizer: pytorch_optimizer\.{name}") as error:
        recipe.optimizer(recipe.model)
    assert "\n" not in str(error.value)


def test_a_first_step_that_a_library_cannot_take_is_told_and_a_users_shown():
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    host = Host(choose_device({"accelerator": "cpu", "precision": "32-true"}))
    with pytest.raises(ConfigError, match=r"SpectralSphere breaks off .*only supports 2D"):
        host.try_optimizer(pytorch_optimizer.SpectralSphere([weight]))

    class Own(torch.optim.SGD):
        def step(self):
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        host.try_optimizer(Own([weight]))
