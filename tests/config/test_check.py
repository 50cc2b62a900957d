import math
from typing import Annotated

import pytest
import torch

import truerisk
from truerisk import assemble
from truerisk.assemble import build
from truerisk.config.check import check_config, find_problems
from truerisk.config.compose import compose, resolve_config
from truerisk.config.parts import list_groups, list_options, option_folders
from truerisk.config.targets import FILLED_IN, find_mismatches, find_swallowed, fits_type
from truerisk.core.errors import ConfigError

CUDA = torch.cuda.is_available()
CHOICES = [
    f"{g}={o}" for g in list_groups(option_folders()) for o in list_options(g, option_folders())
]


class Plain:
    def __init__(self, width: int, rate: float = 0.1, tags: "list[str] | None" = None) -> None: ...


class Open:
    def __init__(self, size: "Unheard[int]", **rest: float) -> None: ...  # noqa: F821


def complaints(target, key="model", filled_in=(), **arguments):
    node = {"_target_": f"{__name__}.{target.__name__}", **arguments}
    return list(find_mismatches(node, key, filled_in))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[Plain.__module__])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_passes_or_is_refused_for_the_machine(choice):
    extra = {
        "optimizer=custom": ["optimizer._target_=torch.optim.SGD"],
        "metric=torchmetrics": ["metric.torchmetrics.metric=F1Score"],
    }
    found = list(find_problems(resolve_config(compose([choice, *extra.get(choice, [])]))))
    assert [p for p in found if not p.startswith("trainer.accelerator=")] == []


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("optimizer.lr=abc", ["optimizer.lr is 'abc'", "float"]),
        ("optimizer.lr='0.1'", ["optimizer.lr is '0.1'", "float"]),
        ("model.depth=2.5", ["model.depth is 2.5", "int"]),
        ("model.bias=1", ["model.bias is 1", "bool"]),
        ("optimizer.betas=[0.9]", ["optimizer.betas is [0.9]", "tuple"]),
        ("trainer.max_epochs=ten", ["trainer.max_epochs is 'ten'", "int | null"]),
        ("data.source.num_samples=many", ["data.source.num_samples is 'many'", "int"]),
        ("optimizer=sam optimizer.base.lr=a", ["optimizer.base.lr is 'a'"]),
        ("regularizer=l2 regularizer.l2.coefficient=a", ["regularizer.l2.coefficient is 'a'"]),
        ("optimizer=sam optimizer.base=adamw", ["write optimizer@optimizer.base=adamw"]),
        (
            "optimizer=custom optimizer._target_=pytorch_optimizer.AliG +optimizer.lr=0.1",
            ["optimizer.lr", "AliG would ignore 'lr'", "max_lr"],
        ),
        ("trainer.devices=0", ["trainer.devices is 0", "auto"]),
        ("trainer.devices=-3", ["trainer.devices is -3"]),
        ("+optimizer.betass=[0,0]", ["optimizer.betass", "did you mean 'betas'"]),
        ("+scheduler.T_maxx=3 scheduler=cosine", ["scheduler.T_maxx", "did you mean 'T_max'"]),
        ("model._target_=truerisk.model.MPL", ["truerisk.model has no 'MPL'", "'MLP'"]),
        ("model._target_=nowhere.Net", ["no module 'nowhere'", "PYTHONPATH"]),
        ("model._target_=torch.nn", ["torch.nn", "nothing that can be called"]),
        ("~model._target_", ["model: nothing is chosen", "truerisk parts model"]),
        ("trainer.max_epochs=-1", ["would not end"]),
        ("trainer.max_epochs=-5", ["at least 0"]),
        ("trainer.max_steps=-5", ["at least 0"]),
        ("trainer.max_time=5min", ["DD:HH:MM:SS"]),
        ("trainer.max_time=10", ["DD:HH:MM:SS"]),
        ("trainer.precision=16-true", ["NaN", "bf16-mixed"]),
        ("trainer.precision=16-mixed", ["CUDA", "bf16-mixed"]),
        ("trainer.precision=bf16mixed", ["did you mean 'bf16-mixed'"]),
        ("trainer.accelerator=gpuu", ["did you mean 'gpu'"]),
        ("+trainer.gradient_clip_val=1", ["step.clip.norm"]),
        ("+trainer.accumulate_grad_batches=2", ["step.accumulate"]),
        ("+trainer.logger=true", ["logger=["]),
        ("step.accumulate=0", ["step.accumulate is 0", "greater than 0"]),
        ("step.accumulate=1.5", ["step.accumulate is 1.5", "integer"]),
        ("step.clip.norm=-1", ["step.clip.norm is -1", "greater than 0"]),
        ("step.clip.norm=1 step.clip.value=1", ["norm and value are both set"]),
        ("+step.clip.nrom=1", ["step.clip.nrom is 1: there is no such key"]),
        ("risk.every=0", ["risk.every is 0"]),
        ("threads=many", ["threads is 'many'", "'auto'"]),
        ("compile=perhaps", ["compile is 'perhaps'"]),
        ("seed.init=-2", ["seed.init is -2"]),
        ("param_groups.rules=3", ["param_groups.rules is 3"]),
    ],
)
def test_a_mistake_is_named_with_its_key(overrides, parts):
    with pytest.raises(ConfigError) as error:
        check_config(compose(overrides.split()))
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_what_a_class_hands_on_is_not_called_ignored():
    import pytorch_optimizer

    node = {"_target_": "pytorch_optimizer.LookSAM", "lr": 0.1}
    assert list(find_swallowed(node, "optimizer", pytorch_optimizer.LookSAM)) == []


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "model", "loss", "param_groups"])
def test_one_option_of_a_group_that_takes_one(group):
    """Hydra merges several: the keys of the first go into the second."""
    first, second = list(list_options(group, option_folders()))[:2]
    with pytest.raises(ConfigError, match=rf"-m {group}={first},{second}"):
        compose([f"{group}=[{first},{second}]"])
    compose([f"{group}=[{first}]"])


@pytest.mark.parametrize("given", ["regularizer=[l2,ema,l2]", "diagnostics=[curvature,curvature]"])
def test_an_option_is_given_once(given):
    with pytest.raises(ConfigError, match=r"names (l2|curvature) twice.*leave one out"):
        compose([given])


def test_a_group_that_needs_an_option_is_not_offered_none():
    with pytest.raises(ConfigError, match=r"optimizer=null: .*truerisk parts optimizer"):
        compose(["optimizer=null"])


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        check_config(compose(["optimizer.lr=abc", "model.depth=x", "threads=0"]))
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        "scheduler=cosine scheduler.T_max=0.5",
        "scheduler=multistep scheduler.milestones=[0.3,90]",
        "data.batch_size=full",
        "optimizer.lr=1",
        "trainer.devices=[0,1]",
        "trainer.max_epochs=-1 trainer.max_steps=10",
        "trainer.max_time=00:00:01:00",
        "trainer.max_time={minutes:1}",
        "optimizer=custom optimizer._target_=torch.optim.SGD +optimizer.lr=0.1",
        "optimizer=sam optimizer@optimizer.base=adamw",
        "optimizer=custom optimizer._target_=pytorch_optimizer.ScheduleFreeAdamW"
        " +optimizer.use_palm=true",  # in its **kwargs
        "trainer.devices=-1",
        "+width=64 model.width=${width}",
        "threads=2 step.clip.value=0.5",
    ],
)
def test_what_is_right_passes(overrides):
    check_config(compose(overrides.split()))


def test_missing_arguments_are_those_neither_given_nor_filled_in():
    assert complaints(Plain) == [
        f"model.width is missing: {__name__}.Plain needs it; add +model.width=…"
    ]
    assert complaints(Plain, filled_in={"width"}) == []
    assert complaints(Plain, _partial_=True) == []
    assert complaints(Plain, _args_=[3]) == []


class Sized(torch.nn.Linear):
    """A model that is told its sizes by the names of this project."""

    def __init__(self, input_shape: list[int], output_size: int, dtype: torch.dtype) -> None:
        super().__init__(input_shape[0], output_size, dtype=dtype)


class Outputs(torch.nn.Linear):
    """A model that asks for a number that nobody fills in."""

    def __init__(self, input_shape: list[int], num_outputs: int) -> None:
        super().__init__(input_shape[0], num_outputs)


def test_a_model_is_told_what_the_table_has_and_nothing_else(tiny, tmp_path):
    (tmp_path / "model").mkdir()
    for kind in (Sized, Outputs):
        text = f"_target_: {__name__}.{kind.__name__}\n"
        (tmp_path / "model" / f"{kind.__name__}.yaml").write_text(text)
    fixed = [text for text in tiny.overrides if not text.startswith("model.")]

    def train(name):
        cfg = compose([*fixed, f"model={name}"], str(tmp_path))
        return truerisk.train(cfg, folder=tmp_path / name)

    assert train("Sized").status == "finished"
    with pytest.raises(ConfigError) as error:
        train("Outputs")
    assert str(error.value) == (
        f"model.num_outputs is missing: {__name__}.Outputs needs it; add +model.num_outputs=…"
    )
    assert not (tmp_path / "Outputs").exists()


def test_all_that_the_table_has_is_filled_in_and_nothing_else(tiny, tmp_path, monkeypatch):
    filled_in = {}

    def noted(node, **available):
        if available:
            filled_in[node._get_full_key("").partition(".")[0]] = available.keys()
        return build(node, **available)

    monkeypatch.setattr(assemble, "build", noted)
    assert tiny(tmp_path / "run", ["metric=[nll]"]).status == "finished"
    assert filled_in == FILLED_IN
    with pytest.raises(TypeError, match=r"\['num_outputs'\] are not in FILLED_IN\['model'\]"):
        build(compose([]).model, num_outputs=3)


def test_textual_hints_are_resolved_and_unknown_ones_skipped():
    assert complaints(Plain, width=1, tags=["a"]) == []
    assert "tags is 3" in complaints(Plain, width=1, tags=3)[0]
    assert complaints(Open, size="any", more=3) == []


@pytest.mark.parametrize(
    ("value", "hint", "right"),
    [
        (True, int, False),
        (True, float, False),
        (3.0, int, False),
        (None, float, False),
        (None, float | None, True),
        (math.inf, float, True),
        ([1, 2], tuple[int, ...], True),
        ({"a": 1}, dict[str, float], True),
        ("a", torch.Tensor, True),
        (0.1, float | torch.Tensor, True),
        ("a", float | torch.Tensor, False),
    ],
)
def test_values_are_not_converted_to_fit(value, hint, right):
    assert fits_type(value, hint) is right


def test_a_type_that_has_no_hash_is_looked_at_all_the_same():
    hint = Annotated[int, {"unit": "steps"}]
    with pytest.raises(TypeError):
        hash(hint)
    assert fits_type(3, hint) and not fits_type("three", hint)


def test_a_scheduler_of_ones_own_needs_no_warmup(tmp_path):
    """Its YAML says what its class takes, and no more."""
    (tmp_path / "scheduler").mkdir()
    option = tmp_path / "scheduler" / "halving.yaml"
    option.write_text("_target_: torch.optim.lr_scheduler.ExponentialLR\ngamma: 0.5\n")
    given = ["data=iris", "scheduler=halving", "optimizer.lr=0.1"]
    cfg = compose(given, config_dir=str(tmp_path))
    check_config(cfg)
    recipe = assemble.assemble(cfg)
    schedule = recipe.schedule(recipe.optimizer(recipe.model), 10)
    schedule.step()
    assert schedule.warmup == 0
    assert schedule.optimizer.param_groups[0]["lr"] == 0.05
