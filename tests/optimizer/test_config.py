"""Every option of conf/optimizer and conf/param_groups composes, builds and descends."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.optimizer import Needs, needs_of, parameter_groups

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = sorted(p.stem for p in (CONF / "optimizer").glob("[!_]*.yaml") if p.stem != "custom")
FULL_BATCH = {"gd_backtracking", "gd_exact", "gd_wolfe", "lbfgs_backtracking"}
SEARCHES = {*FULL_BATCH, "lbfgs", "sgd_armijo", "hill_climbing"}
CLOSURES = {*SEARCHES, "sam"}
GRAPHS = {"adahessian", "sophia"}
PROBLEMS = {"gauss_newton", "kfac", "newton", "newton_cg"}
MODES = {"schedule_free_adamw"}


@functools.cache
def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=list(overrides))


def factory_of(name: str, *overrides: str):
    cfg = composed(f"+optimizer={name}", *overrides)
    return instantiate(cfg.optimizer, _partial_=True, _convert_="all")


def regression():
    """Ridge-like data: 64 samples, an 8-4-1 network."""
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    y = (x @ torch.randn(8, 1)).tanh()
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)), x, y


def closure_for(model, x, y, optimizer, graph):
    def closure():
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward(create_graph=graph)
        return loss

    return closure


@pytest.mark.filterwarnings("ignore:.*create_graph=True.*")
@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in PROBLEMS])
def test_option_lowers_the_loss(name):
    model, x, y = regression()
    factory = factory_of(name)
    groups = parameter_groups(model, [], factory)
    optimizer, needs = factory(groups), needs_of(factory)
    assert all("lr" in group for group in optimizer.param_groups)
    closure = closure_for(model, x, y, optimizer, needs.create_graph)
    first = closure().item()
    for _ in range(5 if name == "lbfgs" else 50 if name in SEARCHES else 300):
        if needs.closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    if needs.train_eval_modes:
        optimizer.eval()
    assert closure().item() < 0.8 * first


@pytest.mark.parametrize("name", OPTIONS)
def test_needs(name):
    needs = needs_of(factory_of(name))
    assert needs.closure == (name in CLOSURES)
    assert needs.curvature == (name in PROBLEMS)
    assert needs.create_graph == (name in GRAPHS)
    assert needs.train_eval_modes == (name in MODES)
    assert needs.gradient == (name != "hill_climbing")
    if name not in PROBLEMS:
        assert needs.full_batch == (name in {*FULL_BATCH, "gd"})
        assert needs.groups == (name not in SEARCHES)
        assert needs.clip == (name not in {*SEARCHES, *GRAPHS})
        assert needs.scaler == (name not in {*CLOSURES, *GRAPHS})
    assert needs.projection == (name not in {*SEARCHES, *PROBLEMS})


def test_needs_are_inferred_for_unknown_classes():
    class LineSearch(torch.optim.Optimizer):
        def step(self, closure): ...

    class Averaging(torch.optim.SGD):
        def train(self): ...
        def eval(self): ...

    class Declared(torch.optim.SGD):
        needs = Needs(clip=False)

    expected = Needs(closure=True, clip=False, scaler=False, projection=False)
    assert needs_of(LineSearch) == expected
    assert needs_of(Averaging) == Needs(train_eval_modes=True)
    assert needs_of(functools.partial(functools.partial(Declared, lr=1), lr=2)) == Declared.needs
    assert needs_of(lambda groups: torch.optim.SGD(groups, lr=1)) == Needs()


def test_needs_table_names_classes_that_exist():
    import pytorch_optimizer

    from truerisk.optimizer.needs import LIBRARY_NEEDS

    for name, needs in LIBRARY_NEEDS.items():
        library, _, attribute = name.partition(".")
        found = getattr(torch.optim if library == "torch" else pytorch_optimizer, attribute)
        assert needs_of(found) is needs


@pytest.mark.parametrize("name", ["gd", "lbfgs"])
def test_full_batch_wins_over_data_and_gives_way_to_the_command_line(name, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "some.yaml").write_text("batch_size: 100\n")
    (tmp_path / "main.yaml").write_text(
        "defaults: [{data: some}, {optimizer: adam}, _self_]\n"
        f"hydra: {{searchpath: ['file://{CONF}']}}\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("main").data.batch_size == 100
        assert compose("main", [f"optimizer={name}"]).data.batch_size == "full"
        mine = compose("main", [f"optimizer={name}", "data.batch_size=10"])
    assert mine.data.batch_size == 10
    assert "data" not in mine.optimizer


@pytest.mark.parametrize("base", ["sgd", "adamw", "muon", "lion", "prodigy"])
def test_sam_takes_its_base_from_the_same_group(base):
    cfg = composed("+optimizer=sam", f"optimizer@optimizer.base={base}", "optimizer.base.lr=0.25")
    model, *_ = regression()
    optimizer = instantiate(cfg.optimizer, _partial_=True, _convert_="all")(model.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.25
    alone = composed(f"+optimizer={base}").optimizer._target_
    assert type(optimizer.base).__name__ == alone.rpartition(".")[2]


@pytest.mark.parametrize("base", ["lbfgs", "schedule_free_adamw", "sam"])
def test_sam_refuses_bases_that_need_more_than_a_gradient(base):
    factory = factory_of("sam", f"optimizer@optimizer.base={base}")
    with pytest.raises(ConfigError, match=r"optimizer@optimizer\.base"):
        factory([nn.Parameter(torch.zeros(1, 1))])


def test_custom_is_any_class():
    cfg = composed("+optimizer=custom", "optimizer._target_=torch.optim.ASGD", "+optimizer.lr=0.1")
    factory = instantiate(cfg.optimizer, _partial_=True)
    assert isinstance(factory([nn.Parameter(torch.zeros(1))]), torch.optim.ASGD)
    assert OmegaConf.is_missing(composed("+optimizer=custom").optimizer, "_target_")


def norm_model():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))


def test_no_decay_spares_biases_and_norms():
    rules = OmegaConf.to_container(composed("+param_groups=no_decay").param_groups.rules)
    factory = factory_of("adamw")
    decayed, spared = parameter_groups(norm_model(), rules, factory)
    assert decayed["param_names"] == ["0.weight", "2.weight"]
    assert spared["param_names"] == ["0.bias", "1.weight", "1.bias"]
    optimizer = factory([decayed, spared])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0]
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), rules, factory)) == 1


def test_all_is_one_group():
    assert composed("+param_groups=all").param_groups.rules == []


def test_groups_leave_out_what_is_frozen():
    model = norm_model()
    model[0].weight.requires_grad_(False)
    (group,) = parameter_groups(model, [], torch.optim.SGD)
    assert group["param_names"] == ["0.bias", "1.weight", "1.bias", "2.weight"]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to optimize"):
        parameter_groups(model, [], torch.optim.SGD)


@pytest.mark.parametrize(
    ("name", "rules", "message"),
    [
        ("adamw", [{"max_ndim": 1, "weigth_decay": 0}], "did you mean 'weight_decay'"),
        ("adamw", [{"nmae": "0"}], "did you mean 'name'"),
        ("lbfgs", [{"max_ndim": 1, "lr": 0.1}], "only one"),
        ("prodigy", [{"max_ndim": 1, "lr": 0.1}], r"optimizer\.lr"),
        ("sgd", [{"max_ndim": 1, "muon": False}], "'muon'"),
        ("adamw", [{"name": "nowhere", "lr": 0.1}], "matches no parameter"),
    ],
)
def test_rules_that_cannot_be_meant(name, rules, message):
    with pytest.raises(ConfigError, match=message):
        parameter_groups(norm_model(), rules, factory_of(name))


def test_first_lines_describe():
    for path in [*CONF.glob("optimizer/*.yaml"), *CONF.glob("param_groups/*.yaml")]:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and len(first) <= 92, path
