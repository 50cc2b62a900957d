"""What combinations are made of: small data, small models, few steps."""

from __future__ import annotations

import math

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

import truerisk
from truerisk.config.compose import LISTS, compose
from truerisk.config.parts import conf_dir, list_groups, list_options
from truerisk.model import Function
from truerisk.verdicts.reproduction import reproduction_names

SHORT = ["trainer.max_epochs=-1", "trainer.max_steps=3", "risk.true_samples=1000"]
FEW = ["data.num_train=20", "data.val=20"]
RISKS = {"risk/train", "risk/val", "risk/test"}

IMAGE_SETS = ("cifar10", "cifar100", "mnist", "fashion_mnist")
DATA = {
    "mnist1d": ["data.source.num_samples=100"],
    "digits": ["data.test=30"],
    "breast_cancer": ["data.test=30"],
    "gaussians": ["data.source.num_samples=60"],
    "teacher": ["data.source.num_samples=60"],
    "noisy_linear": ["data.source.num_samples=60"],
    "modular_addition": ["data.source.prime=11", "data.test=30"],
    "polynomial": ["data.source.num_samples=60"],
    "adding": ["data.source.num_samples=60", "data.source.steps=12"],
    "temporal_order": ["data.source.num_samples=60", "data.source.steps=12"],
    "copy_memory": ["data.source.num_samples=60", "data.source.blanks=4"],
    "parity": ["data.source.num_samples=60"],
    "rare_classes": ["data.source.groups=4", "data.test=20", "data.stratify=false"],
    "table": ["data.source.path={files}/table.csv", "data.source.target=price"],
    "arrays": ["data.source.path={files}/images.npz"],
    "arrays (signals)": ["data.source.path={files}/signals.npz"],
    "text": ["data.source.path={files}/texts", "data.source.context=8"],
    "hub": ["data.source.path={files}/table.parquet"],
    **{name: ["data.source.path={files}/" + name] for name in IMAGE_SETS},
}
"""What a data option needs beside its name; a second kind of the same has a remark."""

MODEL = {
    "mlp": ["model.width=8"],
    "mlp_residual": ["model.width=8"],
    "cnn": ["model.width=4"],
    "cnn1d": ["model.width=5"],
    "resnet": ["model.width=4", "model.stages=1"],
    "resnet18": ["model.width=4", "model.stages=2", "model.depth=1"],
    "resnet20": ["model.width=4", "model.stages=1", "model.depth=1"],
    "wide_resnet": ["model.width=2", "model.groups=2", "model.depth=10", "model.widen=1"],
    "vit": ["model.width=8", "model.heads=2", "model.depth=1", "model.patch=2"],
    **{name: ["model.width=3", "model.readout=mean"] for name in ("rnn", "lstm", "gru")},
    "transformer": ["model.width=8", "model.heads=2", "model.depth=1"],
    "gpt": ["model.width=8", "model.heads=2", "model.depth=1"],
}
OPTIMIZER = {
    "custom": ["optimizer._target_=torch.optim.ASGD", "+optimizer.lr=0.01"],
    "gd": ["optimizer.lr=0.001"],  # short enough for every initializer without a norm
    **{name: ["optimizer.max_iter=4"] for name in ("lbfgs", "newton_cg", "gauss_newton")},
}
# its scale of 1 grows by √15 a layer, and the Poisson loss takes the exponential of that
INITIALIZER = {"sparse": ["initializer.weight.std=0.2"]}
DIAGNOSTICS = {
    # a few products with the Hessian: what they find is tests/diagnostics/'s
    "curvature": ["diagnostics.curvature.probes=2", "diagnostics.curvature.tolerance=0.3"],
    "spectrum": ["diagnostics.spectrum.probes=1", "diagnostics.spectrum.steps=4"],
    "flatness": ["diagnostics.flatness.probes=2", "diagnostics.flatness.iterations=2"],
    "landscape": ["diagnostics.landscape.points=3"],
    "critical_point": ["diagnostics.critical_point.points=3"],
    "gradient_noise": ["diagnostics.gradient_noise.samples=8"],
    "lr_range": ["diagnostics.lr_range.steps=3"],
    "recurrence": ["diagnostics.recurrence.samples=2", "diagnostics.recurrence.lags=2"],
}

WITHOUT_DATA = {("data", "none"), ("loss", "value")}
"""What goes with functions of the weights, whose combinations are another file's."""

TOKENS = {"text", "copy_memory", "gpt", "bits_per_byte", "muon_hidden"}
"""What goes with tokens alone: each by itself, and more in tests/task/test_text_runs.py."""


def is_function(option):
    """Whether a model is a function of its weights alone."""
    node = OmegaConf.load(list_options("model", (conf_dir(),))[option])
    target = get_object(node.get("_target_", "torch.nn.Module"))  # none: an option's it builds on
    return isinstance(target, type) and issubclass(target, Function)


def elsewhere(group, option):
    """Whether it is the study of a reproduction, of which each is run for its claims.

    Or weights of a run of the same model, which its own tests train.
    """
    if (group, option) == ("initializer", "pretrained"):
        return True
    return group == "experiment" and option in reproduction_names()


def on_samples(group, option):
    return (
        not elsewhere(group, option)
        and (group, option) not in WITHOUT_DATA
        and not (group == "model" and is_function(option))
    )


def pytest_generate_tests(metafunc):
    """Every option by itself; every test function."""
    if {"group", "option"} <= set(metafunc.fixturenames):
        names = [group for group in list_groups((conf_dir(),)) if not group.startswith("hydra")]
        every = [(g, o) for g in names for o in list_options(g, (conf_dir(),)) if on_samples(g, o)]
        metafunc.parametrize(("group", "option"), every)
    if "function" in metafunc.fixturenames:
        models = list_options("model", (conf_dir(),))
        metafunc.parametrize("function", [name for name in models if is_function(name)])


@pytest.fixture(scope="session")
def functions():
    """The models that are functions of their weights alone."""
    return [name for name in list_options("model", (conf_dir(),)) if is_function(name)]


@pytest.fixture(scope="session")
def sizes():
    """The overrides that make a run on data short."""
    return [*FEW, *SHORT]


@pytest.fixture(scope="session")
def listed():
    """The options of a group that go with samples; a data option may be of several kinds."""

    def names(group):
        options = list_options(group, (conf_dir(),))
        found = [name for name in options if on_samples(group, name) and name not in TOKENS]
        return found + [name for name in DATA if " " in name and group == "data"]

    return names


@pytest.fixture(scope="session")
def chosen():
    """The overrides that pick one option in a small size."""

    def overrides(group, name):
        option = name.partition(" ")[0]
        small = {"data": DATA, "model": MODEL, "optimizer": OPTIMIZER, "diagnostics": DIAGNOSTICS}
        small["initializer"] = INITIALIZER
        value = f"[{option}]" if group in LISTS else option
        return [f"{group}={value}", *small.get(group, {}).get(name, [])]

    return overrides


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The files that data options without data of their own read."""
    import numpy as np
    import pandas as pd

    folder, draw = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    numbers = {name: draw.normal(size=60) for name in ("area", "age", "price")}
    table = pd.DataFrame({**numbers, "town": draw.choice(["Ulm", "Bonn"], 60)})
    table.to_csv(folder / "table.csv", index=False)
    (folder / "texts").mkdir()
    for k in range(60):
        (folder / "texts" / f"{k}.txt").write_text("".join(draw.choice(list("abc"), 40)))
    labelled = table.drop(columns="town").assign(label=draw.integers(0, 3, 60))
    labelled.to_parquet(folder / "table.parquet")
    for name, shape in {"images": (1, 6, 6), "signals": (2, 12)}.items():
        x = draw.normal(size=(60, *shape)).astype("float32")
        # not below 0, as what is counted
        np.savez(folder / f"{name}.npz", x=x, y=np.abs(draw.normal(size=(60, 2))))
    write_image_sets(folder, draw)
    return folder


def write_image_sets(folder, draw):
    """Write a few images of noise in the form of each set's authors."""
    for name in IMAGE_SETS:
        (folder / name).mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "train", "test"):
        count, labels = (12, 1) if "batch" in name else (60, 2)
        records = draw.integers(0, 256, (count, labels + 3072), dtype="uint8")
        records[:, :labels] %= 2
        (folder / f"cifar10{'0' * (labels - 1)}" / f"{name}.bin").write_bytes(records.tobytes())
    for name in ("mnist", "fashion_mnist"):
        for split in ("train", "t10k"):
            head = bytes([0, 0, 8, 1, 0, 0, 0, 60])
            labels = draw.integers(0, 2, 60, dtype="uint8")
            (folder / name / f"{split}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
            head = bytes([0, 0, 8, 3, 0, 0, 0, 60, 0, 0, 0, 28, 0, 0, 0, 28])
            x = draw.integers(0, 256, (60, 28, 28), dtype="uint8")
            (folder / name / f"{split}-images-idx3-ubyte").write_bytes(head + x.tobytes())


@pytest.fixture
def train(tmp_path, monkeypatch, files):
    """Train what overrides say for a few steps, without the figure and with a short pilot."""
    monkeypatch.setattr("truerisk.show.figure.draw_result", lambda result, config: None)
    monkeypatch.setattr("truerisk.engine.measure.PILOT", 100)
    count = iter(range(10**6))

    def run(*overrides):
        given = overrides[0]
        if isinstance(given, str):
            given = compose([text.format(files=files) for text in overrides])
        return truerisk.train(given, folder=tmp_path / str(next(count)))

    return run


@pytest.fixture(scope="session")
def complete():
    """A finished run's folder has every risk with its error, and a history."""

    def check(result):
        assert result.status == "finished", result.reason
        assert result.summary.keys() >= RISKS
        for name in RISKS:
            measured = result.summary[name]
            assert math.isfinite(measured.value) and measured.stderr >= 0
        history = result.history
        assert {"risk/train", "risk/val", "risk/val/stderr", "objective"} <= set(history.name)
        assert history.step.max() >= 1

    return check
