"""Models of the user's own: what they return is looked at before anything is trained."""

from __future__ import annotations

import copy
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import truerisk
from truerisk.assemble import assemble
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate
from truerisk.result import load_run

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


class Plain(nn.Module):
    def __init__(self, input_shape, output_size):
        super().__init__()
        self.layer = nn.Linear(input_shape[-1], output_size)
        self.scale = nn.Parameter(torch.tensor(1.0))  # of no dimension
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.scale * self.layer(x)


class Named(Plain):
    def forward(self, x):
        return {"hidden": x, "logits": super().forward(x)}


class Paired(Plain):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)


class Lazy(nn.Module):
    def __init__(self, output_size):
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, output_size))

    def forward(self, x):
        return self.net(x)


class Wide(Plain):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape, output_size + 4)


class Flat(Plain):
    def forward(self, x):
        return super().forward(x).squeeze(-1)


class Masked(Plain):
    def forward(self, x, mask):
        return super().forward(x) * mask


class Misshapen(Plain):
    def forward(self, x):
        return self.layer(x[..., None])  # a line of the user's


class Writing(Plain):
    def forward(self, x):
        hidden = x.flatten(1)
        hidden += 1  # a view of the data
        return super().forward(hidden)


class Tiring(Plain):
    def forward(self, x):
        if self.training and self.calls > 8:
            raise KeyError("it is late")
        return super().forward(x)


class Retiring(Tiring):
    def forward(self, x):
        try:
            return super().forward(x)
        except KeyError:
            sys.exit("enough")


class Leaving(Plain):
    def __init__(self, input_shape, output_size):
        sys.exit(0)


class Clipped(nn.Module):
    def __init__(self, input_shape, output_size):
        super().__init__()
        # nothing changes where all inputs are positive
        self.net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(input_shape[-1], output_size))

    def forward(self, x):
        return self.net(x)


class Cut(Plain):
    def forward(self, x):
        return super().forward(x).detach()


class Silent(Plain):
    def forward(self, x):
        super().forward(x)


class Double(Plain):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape, output_size)
        self.double()


class Doubling(Double):
    def forward(self, x):
        return super().forward(x.double())


class Unmade(nn.Module):
    def __init__(self, input_shape, output_size):
        super().__init__()
        self.layer = nn.Linear(input_shape[-1], str(output_size))


class Unfounded(nn.Module):
    def __init__(self, input_shape, output_size):
        self.layer = nn.Linear(input_shape[-1], output_size)


class Bare(nn.Module):
    def __init__(self, input_shape, output_size):
        self.size = output_size


class Object:
    def __init__(self, input_shape, output_size):
        self.size = output_size


def as_function(x):
    return x


KINDS = [Plain, Named, Paired, Lazy, Wide, Flat, Masked, Misshapen, Writing, Clipped, Cut, Silent]
KINDS += [Tiring, Retiring, Leaving, Double, Doubling, Unmade, Unfounded, Bare, Object, as_function]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The classes above as options of the user's, in a module of their own."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("zoo_of_models")
    for kind in KINDS:
        setattr(module, kind.__name__, kind)
        file = tmp_path / "mine" / "model" / f"{kind.__name__.lower()}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# A net\n_target_: zoo_of_models.{kind.__name__}\n")
    monkeypatch.setitem(sys.modules, "zoo_of_models", module)
    return str(tmp_path / "mine")


SMALL = ["data=iris", "trainer.max_epochs=2", "data.batch_size=30", "checkpoint_seconds=0"]
NAMED = {
    "named": ["training mode", "dict (hidden: [2, 4], logits: [2, 3])", "[n, 3]", "model.output="],
    "paired": ["in training mode", "tuple (0: [2, 3], 1: [2, 4])", "model.output="],
    "named +model.output=logit": ["model.output=logit", "logits: [2, 3]"],
    "wide": ["returns [2, 7] for inputs [2, 4]", "[n, 3] is needed", "output_size=3"],
    "flat data=diabetes loss=mse": ["returns [2]", "[n, 1] is needed", ".unsqueeze(-1)"],
    "masked": ["forward takes (x, mask)"],
    "writing": ["forward changes its inputs in place", "hidden += 1  # a view of the data"],
    "clipped": ["forward changes its inputs in place", "return self.net(x)"],
    "cut": ["returns outputs without a gradient", "Cut.forward"],
    "silent": ["in training mode, returns None: does forward end in a return?"],
    "doubling": ["float64 are trained in float32 (trainer.precision=64-true", "x.double()"],
    "object": ["zoo_of_models.Object makes a Object, which is no torch.nn.Module", "Object"],
    "misshapen": ["inputs [2, 4] (float32)", "mat1 and mat2", "a line of the user's"],
}


@pytest.mark.parametrize("given", NAMED)
def test_what_cannot_be_trained_is_named_before_training(mine, tmp_path, capsys, given):
    option, *more = given.split()
    assert main(["train", "--config-dir", mine, *SMALL, f"model={option}", *more]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: model={option}" if "logit" not in given else "error: model.out")
    assert [word for word in NAMED[given] if word not in err] == []
    assert "Traceback" not in err and not list(tmp_path.glob("outputs/*/*"))


UNBUILT = {
    "unmade": r"(?s)model: zoo_of_models\.Unmade: TypeError: .*\n.*in __init__: self\.layer = ",
    "leaving": r"model: .*Leaving: SystemExit: 0\n.*in __init__: sys\.exit\(0\)",
    "unfounded": r"AttributeError: cannot assign module before .*\n.*in __init__: self\.layer = ",
    "bare": r"__init__ does not call super\(\)\.__init__\(\).*\n.*test_first_look\.py, .*Bare$",
    "as_function": r"model: .*\.as_function is a function of \(x\), and a model is a class: ",
}


@pytest.mark.parametrize("option", UNBUILT)
def test_a_class_that_cannot_be_built_shows_its_line(mine, option, exits):
    with pytest.raises(ConfigError, match=UNBUILT[option]) as told:
        truerisk.build_module([*SMALL, f"model={option}"], config_dir=mine)
    # what an older torch says of a wrong argument has two lines more
    assert len(str(told.value).splitlines()) <= 4


def test_a_fault_in_the_midst_of_training_shows_its_line(mine, tmp_path, capsys, monkeypatch):
    words = ["train", "--config-dir", mine, "model=tiring", *SMALL]
    assert main([*words, f"hydra.run.dir={tmp_path / 'run'}"]) == 1
    err = capsys.readouterr().err
    assert "error: KeyError: 'it is late'\n" in err and "Traceback" not in err
    assert 'in forward: raise KeyError("it is late")\n' in err
    result = load_run(tmp_path / "run")
    assert result.status == "failed" and "Traceback" in result.reason
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main([*words, f"hydra.run.dir={tmp_path / 'again'}"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture(params=["sys.exit", "wandb.exit"])
def exits(request, monkeypatch):
    """The function that a user's code ends by: W&B puts its own there, and leaves it."""
    monkeypatch.setattr(sys, "exit", sys.exit)  # put back at the end, as excepthook is
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    if request.param == "wandb.exit":
        from wandb.sdk.lib.exit_hooks import ExitHooks

        ExitHooks().hook()


def test_an_exit_of_the_users_ends_no_run_in_silence(mine, tmp_path, capsys, exits):
    words = ["train", "--config-dir", mine, "model=retiring", *SMALL]
    assert main([*words, f"hydra.run.dir={tmp_path / 'run'}"]) == 1
    err = capsys.readouterr().err
    assert "error: SystemExit: enough\n" in err and 'in forward: sys.exit("enough")\n' in err
    result = load_run(tmp_path / "run")
    assert result.status == "failed" and "SystemExit" in result.reason
    # a cell of a sweep ends by itself, stacked or not, whatever the code
    for launcher in ("basic", "vectorized", "pool"):
        study = [f"hydra.sweep.dir={tmp_path / launcher}", f"hydra/launcher={launcher}"]
        assert main([*words, "-m", "seed=1,2", *study, "report=false"]) == 1
        assert "2 runs: 2 failed\n" in capsys.readouterr().out


class Endless(Plain):
    def forward(self, x):
        return self.again(x)

    def again(self, x):
        return self.again(x)


class Alternating(Endless):
    def again(self, x):
        return self.forward(x)


@pytest.mark.parametrize("kind", [Endless, Alternating])
def test_a_recursion_without_end_is_told_in_a_few_lines(mine, capsys, kind):
    sys.modules["zoo_of_models"].Plain = kind
    assert main(["train", "--config-dir", mine, *SMALL, "model=plain"]) == 2
    err = capsys.readouterr().err
    assert "RecursionError" in err and "in forward: return self.again(x)" in err
    assert " more " in err and len(err.splitlines()) < 20


@pytest.mark.parametrize("option", ["misshapen", "unmade"])
def test_the_whole_traceback_is_told_of_what_is_refused_too(mine, capsys, monkeypatch, option):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main(["train", "--config-dir", mine, *SMALL, f"model={option}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: model") and "Traceback (most recent call last)" in err
    assert "torch/nn/modules" in err and "test_first_look.py" in err


class SpeechlessError(Exception):
    def __str__(self):
        raise TypeError("no words")


class Speechless(Plain):
    def __init__(self, input_shape, output_size, late=False):
        super().__init__(input_shape, output_size)
        self.late = late
        if not late:
            raise SpeechlessError

    def forward(self, x):
        if self.training and self.calls > 8:
            raise SpeechlessError
        return super().forward(x)


@pytest.mark.parametrize("late", [False, True])
def test_an_error_that_cannot_say_what_it_is_is_told_by_its_type(mine, tmp_path, capsys, late):
    sys.modules["zoo_of_models"].Plain = Speechless
    words = ["--config-dir", mine, *SMALL, "model=plain", f"+model.late={late}"]
    assert main(["train", *words]) == (1 if late else 2)
    err = capsys.readouterr().err
    assert "SpeechlessError\n  " in err and "Traceback" not in err and "no words" not in err
    assert main(["train", "-m", *words, "seed=1,2", "report=false"]) == (1 if late else 2)
    told = capsys.readouterr()
    assert "failed (SpeechlessError)" in told.out or "Plain: SpeechlessError\n" in told.err


def test_a_loss_that_cannot_be_built_shows_its_line(mine, tmp_path):
    for kind in ("Unmade", "Bare", "as_function"):
        file = tmp_path / "mine" / "loss" / f"{kind.lower()}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# A loss\n_target_: zoo_of_models.{kind}\n_partial_: true\n")
    given = {"unmade": ["+loss.input_shape=[2]", "+loss.output_size=3"]}
    given["bare"] = given["unmade"]
    for option, word in {
        "unmade": r"(?s)loss: .*TypeError: .*\n.*in __init__: self\.layer = ",
        "bare": r"loss: .*Bare: __init__ does not call super\(\)\.__init__\(\)",
        "as_function": r"a loss is a class: .*forward\(self, outputs, y\)",
    }.items():
        with pytest.raises(ConfigError, match=word):
            overrides = [*SMALL, f"loss={option}", *given.get(option, [])]
            truerisk.build_module(overrides, config_dir=mine)


class Shrinking:
    def __call__(self, model):
        with torch.no_grad():
            model.layer.weight.fill_(0.125)


class Measuring:
    needs_data = True

    def __call__(self, model, inputs):
        with torch.no_grad():
            model.layer.weight.fill_(len(inputs))


class Undone:
    def __call__(self, model):
        raise KeyError("no init")


class Untaken:
    def __call__(self):
        raise AssertionError("never called")


def test_an_initializer_is_called_as_it_asks_and_its_fault_told(mine, tmp_path, capsys):
    for kind in (Shrinking, Measuring, Undone, Untaken):
        setattr(sys.modules["zoo_of_models"], kind.__name__, kind)
        file = tmp_path / "mine" / "initializer" / f"{kind.__name__.lower()}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# An initializer\n_target_: zoo_of_models.{kind.__name__}\n")
    given = ["--config-dir", mine, *SMALL, "model=plain"]
    for name, value in {"shrinking": 0.125, "measuring": 90}.items():
        recipe = assemble(compose([*SMALL, "model=plain", f"initializer={name}"], mine))
        assert recipe.model.layer.weight.unique().tolist() == [value]
    assert main(["train", *given, "initializer=undone"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: initializer: zoo_of_models.Undone: KeyError: 'no init'\n  ")
    assert err.count("\n") == 2 and 'in __call__: raise KeyError("no init")' in err
    assert main(["train", *given, "initializer=untaken"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "error: initializer: zoo_of_models.Untaken: TypeError: Untaken.__call__()"
    )
    assert "are called on the model" in err and err.splitlines()[1].endswith(", Untaken")


def test_a_model_in_double_precision_is_told_what_it_is_trained_in(mine):
    recipe = assemble(compose([*SMALL, "model=double"], mine))
    note = "weights of float64 are trained in float32 (trainer.precision=64-true keeps them)"
    assert f"model=double: {note}" in recipe.data.notes
    assert {p.dtype for p in recipe.model.parameters()} == {torch.float32}
    wide = [*SMALL, "model=doubling", "trainer.precision=64-true"]
    assert truerisk.train(wide, config_dir=mine, folder="wide").status == "finished"


def test_what_a_look_leaves_has_no_graph(mine):
    """A copy of a model is made later, and torch copies no tensor that is part of a graph."""

    class Keeping(Plain):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    sys.modules["zoo_of_models"].Plain = Keeping
    module, _ = truerisk.build_module([*SMALL, "model=plain"], config_dir=mine)
    assert not copy.deepcopy(module.model).last.requires_grad


def sweep(mine, *more):
    assert main(["train", "-m", "--config-dir", mine, *SMALL, "report=false", *more]) == 0


def summaries(tmp_path, study):
    return {
        path.name: load_run(path).summary for path in (tmp_path / "outputs" / study).glob("seed*")
    }


@pytest.mark.parametrize("given", ["named +model.output=logits", "paired +model.output=0", "lazy"])
def test_the_entry_that_is_meant_is_trained_alone_and_stacked(mine, tmp_path, given, capsys):
    own = ["model=" + given.split()[0], *given.split()[1:], "seed=1,2"]
    sweep(mine, *own, "study=single")
    sweep(mine, *own, "study=stacked", "hydra/launcher=vectorized")
    singles, stacked = summaries(tmp_path, "single"), summaries(tmp_path, "stacked")
    assert singles.keys() == stacked.keys() and len(singles) == 2
    for name, summary in singles.items():
        for metric, measured in summary.items():
            assert stacked[name][metric].value == pytest.approx(measured.value, abs=1e-5)
    # ... and is what a run gives back
    folder = next((tmp_path / "outputs" / "single").glob("seed*"))
    again = evaluate(folder, config_dir=mine).summary["risk/test"]
    assert again.value == load_run(folder).summary["risk/test"].value
    assert load_run(folder).network(torch.zeros(2, 4)).shape == (2, 3)


def test_an_entry_is_trained_as_a_model_that_returns_it_alone(mine):
    plain = truerisk.train([*SMALL, "model=plain"], config_dir=mine, folder="plain")
    named = [*SMALL, "model=named", "+model.output=logits"]
    assert truerisk.train(named, config_dir=mine, folder="named").summary == plain.summary


def test_a_look_at_a_model_moves_nothing(mine):
    """Buffers stand as they were, and a draw of its own is none of the run's."""
    seen = []

    class Noisy(Plain):
        def forward(self, x):
            seen.append(float(self.calls))
            return super().forward(x + 0 * torch.rand_like(x))

    sys.modules["zoo_of_models"].Plain = Noisy
    noisy = truerisk.train([*SMALL, "model=plain"], config_dir=mine, folder="noisy")
    sys.modules["zoo_of_models"].Plain = Plain
    plain = truerisk.train([*SMALL, "model=plain"], config_dir=mine, folder="plain")
    assert seen[:2] == [0, 1] and seen[2] == 0
    assert noisy.summary == plain.summary


def test_a_model_that_no_memory_holds_is_refused_at_once(capsys):
    assert main(["train", "data=iris", "model.width=1000000000"]) == 2
    err = capsys.readouterr().err
    assert "model.width=1000000000 has 1e+18 parameters" in err and "GiB" in err
    with pytest.raises(ConfigError, match=r"model\.widths=\[3000000, 3000000\]"):
        truerisk.train(["data=iris", "model.widths=[3000000,3000000]"])


def test_stages_that_double_the_channels_too_often_are_refused_at_once(tmp_path):
    np.savez(tmp_path / "long.npz", x=np.zeros((20, 1, 8192), dtype="f4"), y=np.arange(20) % 2)
    words = ["data=arrays", f"data.source.path={tmp_path}/long.npz", "model=resnet"]
    # 3 · 2 · (16 · 2¹³)² weights in the last block alone
    with pytest.raises(ConfigError, match=r"model\.width=16, model\.stages=14 has .*GiB"):
        truerisk.train([*words, "model.stages=14"])
