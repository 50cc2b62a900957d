"""Models and data given to truerisk.train as Python objects."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

OVERRIDES = ["data.batch_size=20", "trainer.max_epochs=2", "threads=1", "checkpoint_seconds=0"]
SIZES = {"train": 60, "val": 30, "test": 20}


def make_pairs(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(110, 4, generator=draw)
    return x, (x.sum(1) > 0).long()


def make_splits():
    x, y = make_pairs()
    return {n: (a, b) for n, a, b in zip(SIZES, x.split([60, 30, 20]), y.split([60, 30, 20]))}


def make_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


class Pairs(Dataset):
    """Somebody's dataset, which gives one sample at a time, and plain labels."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])


class Module(L.LightningDataModule):
    """Somebody's data module, with loaders that shuffle and drop."""

    def setup(self, stage):
        self.splits = {name: TensorDataset(*pair) for name, pair in make_splits().items()}

    def train_dataloader(self):
        return DataLoader(self.splits["train"], 16, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.splits["val"], 16)

    def test_dataloader(self):
        return DataLoader(self.splits["test"], 16)


def sizes(result):
    from truerisk.assemble import assemble
    from truerisk.core.python_objects import offer_objects

    with offer_objects(result.objects):
        data = assemble(result.config).data
    splits = {name: getattr(data, name) for name in SIZES}
    return {name: len(split) for name, split in splits.items() if split is not None}


FORMS = {
    "tensors": lambda: tuple(t for pair in make_splits().values() for t in pair),
    "arrays": lambda: tuple(t.numpy() for pair in make_splits().values() for t in pair),
    "datasets": lambda: tuple(Pairs(*pair) for pair in make_splits().values()),
    "module": Module,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The same samples as tensors."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return truerisk.train(OVERRIDES, data=FORMS["tensors"](), folder=folder)


@pytest.mark.parametrize("form", FORMS)
def test_samples_in_any_form_give_the_same_run(form, tmp_path, reference):
    result = truerisk.train(OVERRIDES, data=FORMS[form](), folder=tmp_path / "run")
    assert sizes(result) == SIZES
    assert result.summary == reference.summary
    node = result.config.data.source
    assert node.shapes.train == [[60, 4], [60]] and len(node.digest) == 12


def test_one_set_is_split_as_the_options_say(tmp_path):
    options = [*OVERRIDES, "data.val=0.25", "data.test=11"]
    for name, data in {"pair": make_pairs(), "dataset": Pairs(*make_pairs())}.items():
        result = truerisk.train(options, data=data, folder=tmp_path / name)
        assert sizes(result) == {"train": 71, "val": 28, "test": 11}


def test_two_sets_have_no_test_set(tmp_path):
    splits = make_splits()
    data = (*splits["train"], *splits["val"])
    result = truerisk.train(OVERRIDES, data=data, folder=tmp_path / "run")
    assert sizes(result) == {"train": 60, "val": 30} and "risk/test" not in result.summary


def test_regression_and_texts(tmp_path):
    x, y = make_pairs()
    options = [*OVERRIDES, "loss=mse"]
    result = truerisk.train(options, data=(x, x.sum(1)), folder=tmp_path / "numbers")
    assert result.task == "regression"
    names = np.array(["no", "yes"])[y]
    result = truerisk.train(OVERRIDES, data=(x.tolist(), names), folder=tmp_path / "texts")
    assert result.run.metadata()["data"]["class_names"] == ["no", "yes"]


def test_a_model_is_trained_and_left_as_it_was(tmp_path, reference):
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = FORMS["tensors"]()
    result = truerisk.train(OVERRIDES, model=model, data=data, folder=tmp_path / "run")
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    node = result.config.model
    assert node.class_path == "torch.nn.modules.container.Sequential" and node.parameters == 37
    start = result.history.query("name == 'risk/train' and epoch == 0").value.item()
    assert start != reference.history.query("name == 'risk/train' and epoch == 0").value.item()
    assert isinstance(result.network, nn.Sequential)
    assert not torch.equal(result.network[0].weight, before["0.weight"])
    again = truerisk.train(OVERRIDES, model=model, data=data, folder=tmp_path / "again")
    assert again.summary == result.summary


def test_a_model_for_data_of_ours(tmp_path):
    model = nn.Linear(4, 3)
    options = ["data=iris", *OVERRIDES[1:]]
    result = truerisk.train(options, model=model, folder=tmp_path / "run")
    assert result.status == "finished" and result.config.choices.model == "linear"
    # not that of the option of this name
    with pytest.raises(ConfigError, match=r"^model=Linear\(…\) from Python: forward fails"):
        truerisk.train(options, model=nn.Linear(3, 3), folder=tmp_path / "wrong")


def test_going_on_needs_the_objects_again(tmp_path):
    from truerisk.engine.step import Step

    folder, data, model = tmp_path / "cut", FORMS["tensors"](), make_model()
    whole = truerisk.train(OVERRIDES, model=model, data=data, folder=tmp_path / "whole")
    step = Step.__call__

    def breaking(self, batches):
        step(self, batches)
        if self.state.step == 5:
            raise RuntimeError("broken")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Step, "__call__", breaking)
        truerisk.train(OVERRIDES, model=model, data=data, folder=folder)
    for given in ({}, {"data": data}):
        with pytest.raises(ConfigError, match="must be given again") as refused:
            truerisk.train([f"resume={folder}"], **given)
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="this is not a torch"):
        truerisk.train([f"resume={folder}"], model=make_model(1), data=data)
    again = truerisk.train([f"resume={folder}"], model=model, data=data)
    assert again.summary == whole.summary


def test_looking_again_needs_the_objects_again(reference):
    with pytest.raises(ConfigError, match=r"data: this run was given data \(arrays\) from Python"):
        evaluate(reference.folder)


def test_a_model_read_back_needs_the_object_again(tmp_path):
    options = ["data=iris", *OVERRIDES[1:]]
    truerisk.train(options, model=nn.Linear(4, 3), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"a torch\.nn\.modules\.linear\.Linear from Python"):
        _ = truerisk.load_run(tmp_path / "run").model


class Network(L.LightningModule):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"model": Network()},
            "Network is a LightningModule, whose training_step would be ignored",
        ),
        ({"model": "mlp"}, r"model is a str: give a torch\.nn\.Module, or model=NAME"),
        ({"model": nn.Linear(4, 7)}, r"outputs \[2, 7\].*the loss takes 2"),
        ({"data": 3}, "data is a int: give"),
        ({"data": make_pairs()[:1]}, "data is a tuple: give"),
        (
            {"model": nn.Sequential(nn.LazyLinear(2))},
            r"model: 0\.weight of Sequential has no weights yet: call it once",
        ),
        ({"data": (DataLoader(Pairs(*make_pairs())),) * 2}, "data holds a DataLoader: give"),
        ({"data": (torch.zeros(3, 4), torch.zeros(2))}, "train has 3 inputs and 2 targets"),
    ],
    ids=["lightning", "text", "outputs", "number", "single", "lazy", "loaders", "lengths"],
)
def test_what_cannot_be_trained_is_refused_in_a_line(tmp_path, given, message):
    given = {"data": make_pairs(), **given}
    with pytest.raises(ConfigError, match=message) as refused:
        truerisk.train(OVERRIDES, folder=tmp_path / "run", **given)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_a_lightning_module_in_the_configuration_is_refused(tmp_path):
    (tmp_path / "options/model").mkdir(parents=True)
    path = "lightning.pytorch.demos.boring_classes.BoringModel"
    (tmp_path / "options/model/boring.yaml").write_text(f"# A demo\n_target_: {path}\n")
    options = ["data=iris", "model=boring"]
    with pytest.raises(ConfigError, match="BoringModel is a LightningModule"):
        truerisk.train(options, config_dir=str(tmp_path / "options"), folder=tmp_path / "run")


@pytest.mark.parametrize("override", ["model=cnn1d", "model.width=5", "data=iris"])
def test_an_override_beside_an_object_is_refused(override):
    with pytest.raises(ConfigError, match=f"{override} has no effect beside"):
        truerisk.train([override], model=make_model(), data=make_pairs())
