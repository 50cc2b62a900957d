"""Cells are composed as Hydra composes them, only faster."""

from __future__ import annotations

import pickle
import shutil

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from truerisk.config.cell_composer import CellComposer
from truerisk.config.compose import (
    ConfigLoader,
    compose,
    drop_hydra,
    hydra_session,
    resolve_config,
)
from truerisk.config.parts import PRIMARY, conf_dir
from truerisk.core.errors import ConfigError


@pytest.fixture(scope="module")
def loader():
    with hydra_session():
        yield ConfigLoader()


@pytest.fixture(scope="module")
def composer(loader):
    return CellComposer(loader)


CELLS = [
    "optimizer=sgd optimizer.lr=0.1 seed.base=3",
    "optimizer=sgd optimizer.lr=1e-3 seed.base=4 seed.order=0",
    "model=linear data=iris data.batch_size=full",
    "optimizer.lr=0.1 optimizer=momentum",
    "regularizer=[l2,dropout] regularizer.l2.coefficient=0.1 regularizer.dropout.p=0",
    "regularizer=[dropout,l2]",
    "data=table data.source.path='a file, with commas.csv' data.source.target=y",
    "data=table data.source.path=x.csv data.source.target=[a,b] data.source.drop=[c]",
    "optimizer.betas=[0.8,0.99]",
    "step.clip={norm:1}",
    "step.clip.norm=null compile=true",
    "+trainer.benchmark=true seed.base=2",
    "+trainer.benchmark=true trainer.benchmark=false",
    "trainer.max_epochs=3 ~optimizer.betas",
    "++trainer.max_epochs=7 trainer.max_epochs=8",
    "optimizer.lr=${seed.base} seed.base=2",
    "+x=${seed.base} seed.base=2",
    "experiment=mnist1d_table model=gru",
    "seed={base:3,init:1}",
    "hydra.verbose=true seed.base=9",
    "regularizer=[early_stopping] monitor=error/val",
    "regularizer=[early_stopping] monitor=error/val regularizer.early_stopping.monitor=risk/train",
    "regularizer=[early_stopping] regularizer.early_stopping.monitor=risk/train seed.base=3",
    "+part={a:1,b:2} +copy=${part} +far=${copy.a} seed.base=3",
    "+part={a:1,b:2} +copy=${part} +far=${copy.a} part.a=3",
]


@pytest.mark.parametrize("cell", CELLS)
def test_as_hydra_does(loader, composer, cell):
    overrides = cell.split(" ") if "'" not in cell else SPLIT
    theirs = loader.load_configuration(PRIMARY, overrides, RunMode.RUN)
    for _ in range(2):  # the second time from what was kept
        assert composer(overrides).config == resolve_config(theirs)


SPLIT = ["data=table", "data.source.path='a file, with commas.csv'", "data.source.target=y"]


def test_the_order_of_regularizers_is_kept(composer):
    for names in ("l2,dropout", "dropout,l2"):
        found = composer([f"regularizer=[{names}]", "seed.base=1"]).config["regularizer"]
        assert ",".join(found) == names


def test_one_cell_does_not_leak_into_another(composer):
    first = composer(["optimizer.lr=0.5"]).config
    composer(["optimizer.lr=0.25", "seed.base=8", "trainer.max_epochs=2"])
    assert first["optimizer"]["lr"] == 0.5 and first["seed"]["base"] == 0
    assert composer([]).config["optimizer"]["lr"] != 0.25


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("optimizer.lrr=1", "optimizer.lrr: there is no 'lrr'; did you mean 'lr'?"),
        ("optimizer=adm", "did you mean 'adam'?"),
        ("optimizer.lr.x=1", "optimizer.lr"),
        ("optimizer.momentum=0.5", "belongs to"),
        ("optimizer.lr=${nowhere}", "'nowhere' not found"),
        ("optimizer.lr=???", "optimizer.lr has no value yet"),
        ("optimizer.lr=[", "cannot read the override"),
    ],
)
def test_mistakes(composer, cell, message):
    with pytest.raises(ConfigError) as error:
        composer([cell])
    assert message in str(error.value)


@pytest.mark.parametrize("options", ["", "data=table data.source.path=a.csv data.source.target=y"])
def test_a_number_is_set_without_hydra(composer, options, monkeypatch):
    """Which takes fifty times as long: a reference in an option is no reason to ask it."""
    asked = ["regularizer=[early_stopping]", *options.split(), "trainer.max_epochs=3"]
    composer(asked)
    monkeypatch.setattr(composer, "_apply_with_hydra", None)
    for seed in range(3):
        config = composer([*asked, f"seed.base={seed}", "optimizer.lr=0.5"]).config
        assert (config["seed"]["base"], config["optimizer"]["lr"]) == (seed, 0.5)
        assert config["regularizer"]["early_stopping"]["monitor"] == config["monitor"]


@pytest.mark.parametrize("cell", CELLS)
def test_one_configuration_is_what_hydra_composes(loader, cell):
    overrides = cell.split(" ") if "'" not in cell else SPLIT
    theirs = drop_hydra(loader.load_configuration(PRIMARY, overrides, RunMode.RUN))
    for _ in range(2):
        mine = compose(overrides)
        assert OmegaConf.to_container(mine) == OmegaConf.to_container(theirs)
        mine.optimizer.lr = 1e9  # no one else's


def test_an_edited_file_of_the_package_is_read_again(tmp_path, monkeypatch):
    folder = tmp_path / "conf"
    shutil.copytree(conf_dir(), folder)
    monkeypatch.setattr("truerisk.config.compose.conf_dir", lambda: folder)
    monkeypatch.setattr("truerisk.config.parts.conf_dir", lambda: folder)
    before = compose(["optimizer=sgd"]).optimizer.lr
    option = folder / "optimizer" / "sgd.yaml"
    option.write_text(option.read_text().replace(f"lr: {before}", "lr: 0.625"))
    assert compose(["optimizer=sgd"]).optimizer.lr == 0.625 != before


def test_many_choices_are_composed_in_several_processes(loader, monkeypatch):
    optimizers = ["adam", "sgd", "momentum", "lion", "muon", "soap", "kfac", "newton", "gd"]
    points = [
        [f"optimizer={optimizer}", f"data={data}", f"seed.base={seed}", *wrong]
        for optimizer in optimizers
        for data in ("iris", "wine", "digits", "gaussians")
        for seed in (1, 2)
        for wrong in ([], ["optimizer.betas=[0.8,0.9]"])
    ]
    points.append(["optimizer=adamm"])
    ahead, after = CellComposer(loader), CellComposer(loader)
    monkeypatch.setattr("truerisk.core.threads.count_cores", lambda: 2)
    monkeypatch.setattr("threading.active_count", lambda: 1)  # pytest has more beside xdist
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
        ahead.compose_ahead(points)
    assert not ahead._shared  # left to each cell where processes cannot be forked
    ahead.compose_ahead(points)
    assert len(ahead._shared) == 36 and not after._shared
    for point in points[::3]:
        try:
            expected = after(point)
        except ConfigError as error:
            with pytest.raises(ConfigError) as raised:
                ahead(point)
            assert str(raised.value) == str(error)
        else:
            found = ahead(point)
            assert found.config == expected.config
            nodes = [pickle.loads(cell.hydra) for cell in (found, expected)]
            assert OmegaConf.to_container(nodes[0]) == OmegaConf.to_container(nodes[1])
    with pytest.raises(ConfigError, match="adamm"):
        ahead(points[-1])
