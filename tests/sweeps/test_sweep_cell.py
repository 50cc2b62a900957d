from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from truerisk.config.compose import compose, resolve_config
from truerisk.core.yaml_files import format_yaml
from truerisk.reports.config_diff import flatten_config
from truerisk.sweeps import sweep_cell
from truerisk.sweeps.sweep_cell import SweepCell, find_revisions, hash_config, make_cfgs, make_slug


def mark(*overrides):
    return hash_config(resolve_config(compose(overrides)))


@pytest.fixture(scope="module")
def default():
    return mark()


@pytest.mark.parametrize(
    "same",
    [
        "logger=[csv,tensorboard]",
        "threads=2",
        "recompute=true",
        "checkpoint_seconds=0",
        "study=x",
        "data.in_memory=false",
        "data.workers=2",
        "hydra.run.dir=elsewhere",
    ],
)
def test_what_does_not_change_the_result(default, same):
    assert mark(same) == default


@pytest.mark.parametrize(
    "other",
    [
        "seed=1",
        "seed.order=1",
        "optimizer.lr=0.02",
        "optimizer=sgd",
        "trainer.precision=64-true",
        "trainer.max_epochs=99",
        "risk.every=2",
        "data.val=1",
        "compile=true",
        "step.clip.norm=1",
        "+model.more=1",
    ],
)
def test_what_does(default, other):
    assert mark(other) != default


def test_a_count_is_not_a_share():
    assert mark("data.val=1") != mark("data.val=1.0")


def test_the_order_of_overrides_does_not_count_and_that_of_regularizers_does():
    assert mark("seed=1", "+trainer.benchmark=true", "+model.x=1") == mark(
        "+model.x=1", "+trainer.benchmark=true", "seed=1"
    )
    assert mark("regularizer=[mixup,input_noise]") != mark("regularizer=[input_noise,mixup]")


def test_long_and_odd_names_are_still_names():
    assert len(make_slug([f"key{i}={i}" for i in range(99)])) <= 120
    assert make_slug([]) == "run" and make_slug(["x='../a'"]) == "x=..-a"
    assert "/" not in make_slug(["data.source.path=/a/b", "x={a:1}"])


def test_a_name_that_would_be_cut_keeps_what_tells_cells_apart():
    same = [f"key{i}=0.0123456789" for i in range(9)]
    assert make_slug([*same, "lr=1"], {"lr"}) == "lr=1"
    assert make_slug([*same[:2], "lr=1"], {"lr"}) == "key0=0.0123456789,key1=0.0123456789,lr=1"
    assert make_slug([*same, "lr=1"], {"seed"}) == make_slug([*same, "lr=1"])


REVISED = {
    ("loss.label_smoothing=0.1",): "risk without smoothing",
    ("scheduler=warm_restarts",): "descents of a share",
    ("regularizer=mixup", "regularizer.mixup.alpha=0.001"): "beta by logarithms",
    ("regularizer=cutmix", "regularizer.cutmix.alpha=1e-5"): "beta by logarithms",
    ("model=cubic", "data=none", "loss=value", "scheduler=plateau"): "plateau below zero",
    ("regularizer=spectral_norm",): "singular vectors",
    ("regularizer=swa", "model.normalization=batch"): "statistics of an average",
    ("regularizer=ema", "model=resnet"): "statistics of an average",
    ("optimizer=newton",): "least norm",
    ("optimizer=schedule_free_adamw", "model.normalization=batch"): "statistics of x",
}


@pytest.mark.parametrize(("overrides", "word"), REVISED.items())
def test_cells_that_come_to_other_numbers_now_are_others(overrides, word, monkeypatch):
    config = resolve_config(compose(overrides))
    assert find_revisions(config) == [word]
    new = hash_config(config)
    monkeypatch.setattr(sweep_cell, "REVISIONS", {})
    assert new != hash_config(config)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["scheduler=warm_restarts", "scheduler.T_0=100"],
        ["scheduler=plateau"],
        ["regularizer=[mixup,cutmix,ema,l2]"],
    ],
)
def test_other_cells_are_found_by_the_hash_they_had(overrides):
    config = resolve_config(compose(overrides))
    assert find_revisions(config) == []


def test_scaled_targets_are_another_regression_and_the_same_classification():
    def without(*overrides):
        config = resolve_config(compose(overrides))
        del config["data"]["standardize_target"]
        return hash_config(config)

    regression = ["data=diabetes", "loss=mse"]
    assert mark() == without() == mark("data.standardize_target=true")
    assert mark(*regression) != without(*regression)
    assert mark(*regression, "data.standardize_target=false") == without(*regression)


def test_a_table_read_as_it_always_was_is_the_same_cell():
    options = ["data=table", "data.source.path=t.csv", "data.source.target=y"]
    before = ["data.source.delimiter=','", "data.source.decimal='.'", "data.source.dates=category"]
    config = resolve_config(compose([*options, *before]))
    new = ("classes", "dates", "decimal", "thousands", "encoding", "skip_lines", "na_values")
    for key in (*new, "keep_default_na"):
        del config["data"]["source"][key]
    assert mark(*options, *before) == hash_config(config) != mark(*options)


def test_cells_of_earlier_versions_are_the_same_recipe():
    config = resolve_config(compose(["data=iris"]))
    old = {**config, "data": {k: v for k, v in config["data"].items() if k != "standardize_target"}}
    assert flatten_config(old) == flatten_config(config)


def test_a_residual_network_without_projections_is_the_same_cell():
    """Shortcuts of zeros are what there was before there was a key for them."""
    config = resolve_config(compose(["model=resnet"]))
    del config["model"]["shortcut"]
    assert mark("model=resnet") == hash_config(config) == "15d334780b"
    assert mark("model=resnet", "model.shortcut=projection") != hash_config(config)


def test_configurations_made_together_are_those_made_one_by_one(tmp_path, default):
    changed = [
        [],
        ["seed.base=3"],
        ["optimizer.lr=1"],
        ["optimizer.lr=1.0"],
        ["optimizer=sgd"],  # other keys
        ["regularizer=[l2,dropout]"],
        ["+optimizer.betas=[0.5,0.9]"],
        ["data.val=0.25", "data.standardize_target=true"],
    ]
    cells = []
    for overrides in changed:
        config = resolve_config(compose(overrides))
        cells.append(SweepCell(tuple(overrides), (), config, tmp_path))
    reordered = dict(reversed(cells[0].config.items()))
    cells.append(SweepCell((), (), reordered, tmp_path))
    for cell, cfg in zip(cells, make_cfgs(cells), strict=True):
        alone = cell.make_cfg()
        assert format_yaml(cfg) == format_yaml(alone)  # the order of keys as well
        assert repr(resolve_config(cfg)) == repr(resolve_config(alone))
        assert cfg.optimizer._get_full_key("lr") == "optimizer.lr"
        assert OmegaConf.is_struct(cfg)
        cfg.seed.base = 77  # each is its own
    assert list(make_cfgs([])) == []
