"""A mistake gets one message and exit code 2; nothing is trained and nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truerisk.assemble import assemble
from truerisk.cli import main
from truerisk.config.check import check_config
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, in which training would be noticed."""
    monkeypatch.chdir(tmp_path)

    def trained(*_):
        raise AssertionError("training has begun")

    monkeypatch.setattr("truerisk.engine.step.Step.__call__", trained)
    return tmp_path


@pytest.fixture
def refused(here, tiny, capfd):
    """Run a command that is refused, and return its one message."""

    def contents():
        return sorted(p for p in here.rglob("*") if p.name != "outputs")

    def run(args, start=("train", *tiny.overrides)):
        before = contents()
        code = main([*start, *args])
        out, err = capfd.readouterr()
        assert code == 2, (code, out, err)
        assert err.startswith("error: ") and "\nerror: " not in err
        assert "Traceback" not in err + out and "epoch" not in out
        assert err.count("\n") == 1, err
        assert contents() == before
        return err.removeprefix("error: ").strip()

    return run


WORDS = [
    # what is no part in the place of one
    ("data.source=3", "data.source is 3: it is a part of its own, with a _target_; data=NAME"),
    ("data.source=null", "data.source is null: it is a part of its own"),
    ("optimizer=sam optimizer.base=3", "optimizer.base is 3: it is a part of its own"),
    ("loss=[1]", "loss=[1]: options are chosen by name (truerisk parts loss)"),
    ("regularizer=[l2,1]", "options are chosen by name (truerisk parts regularizer)"),
    ("-m loss=[1],[mse]", "options are chosen by name (truerisk parts loss)"),
    ("-m model=null,mlp", "model=null,mlp: options are chosen by name (truerisk parts model)"),
    ("-m choices=3,4", "choices=3,4: it tells what GROUP=NAME has chosen"),
    # numbers of losses
    ("loss.label_smoothing=2", "loss.label_smoothing must be a number at least 0 and at most 1"),
    ("loss.label_smoothing=-1", "loss.label_smoothing must be a number at least 0 and at most 1"),
    ("data=diabetes loss=huber loss.delta=0", "loss.delta must be a number greater than 0, not 0"),
    ("data=diabetes loss=huber loss.delta=-1", "must be a number greater than 0, not -1"),
    ("loss=hinge loss.margin=-1", "loss.margin=-1 must be greater than 0"),
    # empty, as from a variable that was not set
    ("resume=", "resume is empty: name a run's folder, or leave it out"),
    ("resume=''", "resume is empty: name a run's folder, or leave it out"),
    ("data=table data.source.path=", "data.source.path is empty"),
    ("data=mnist data.source.cache=", "data.source.cache is empty"),
    ("initializer=pretrained initializer.path=''", "initializer.path is empty"),
    ("logger=[wandb] logger.wandb.project=", "logger.wandb.project is empty"),
    ("logger=[mlflow] logger.mlflow.tracking_uri=", "logger.mlflow.tracking_uri is empty"),
    ("hydra.run.dir=", "hydra.run.dir is empty"),
    ("-m seed=1,2 hydra.sweep.dir=", "hydra.sweep.dir is empty"),
    ("-m seed=1,2 hydra/launcher=joblib hydra.launcher.temp_folder=", "temp_folder is empty"),
    ("-m optimizer.lr=1,2 hydra/sweeper=optuna hydra.sweeper.storage=", "storage is empty"),
    ("--config-dir=", "--config-dir: the folder's name is empty"),
    # unknown options
    ("optimizer=adm", "conf/optimizer has no option 'adm'", "'adam'"),
    ("regularizer=[l2,droput]", "regularizer", "'dropout'"),
    ("hydra/launcher=submitit_slrum", "hydra/launcher=submitit_slrum", "submitit_slurm"),
    ("hydra/launcher=pool hydra.launcher.slot=2", "hydra.launcher.slot", "did you mean 'slots'"),
    # misspelt keys
    ("optimizer.lrate=1", "optimizer.lrate", "lr"),
    ("checkpoint_second=2", "checkpoint_second", "'checkpoint_seconds'"),
    # left over from another option
    ("optimizer=sgd optimizer.betas=[0.9,0.99]", "optimizer.betas", "conf/optimizer/sgd.yaml"),
    ("regularizer=[l1] regularizer.l2.coefficient=1", "regularizer.l2", "[l1,l2]"),
    # wrong types and values
    ("optimizer.lr=fast", "optimizer.lr", "'fast'"),
    ("optimizer.lr=-1", "optimizer", "-1"),
    ("model.width=0", "width", "0"),
    ("data.batch_size=0", "data.batch_size", "0"),
    ("trainer.max_epochs=-1", "max_epochs", "max_steps"),
    ("seed=-1", "seed", "-1"),
    ("regularizer=[early_stopping] regularizer.early_stopping.monitor=risk/vall",
     "regularizer.early_stopping.monitor", "'risk/val'"),
    ("scheduler=cosine scheduler.warmup=5.5", "scheduler.warmup", "5.5"),
    # what does not fit together
    ("loss=mse data=iris", "loss=mse is for regression", "cross_entropy"),
    ("optimizer=gd", "data.batch_size=full", "GD"),
    ("trainer.precision=16-mixed", "trainer.precision", "bf16-mixed"),
    ("trainer.gradient_clip_val=1", "gradient_clip_val", "step.clip.norm"),
    ("model=cnn", "model", "image"),
    ("model=resnet18", "model=resnet18 takes", "use model=linear"),
    ("trainer.devices=99 trainer=cpu", "trainer.devices=99", "cores: give"),
    ("data=diabetes loss=mse regularizer=[entropy]", "entropy", "class"),
    ("optimizer=custom optimizer._target_=torch.optim.Sgd", "optimizer._target_", "'SGD'"),
    # empty splits
    ("data.val=0", "data.val", "0"),
    ("data.num_train=1000", "data.num_train", "1000"),
    ("data.val=1000", "data.val", "none is left to train on"),
    # overrides that are none
    ("optimizer.lr=1,2", "optimizer.lr=1,2", "--multirun"),
    ("resume=nowhere", "leave out", "resume"),
]  # fmt: skip


@pytest.mark.parametrize("case", WORDS, ids=lambda case: case[0])
def test_in_the_words_of_the_command(refused, case):
    overrides, *named = case
    message = refused(overrides.split())
    assert [part for part in named if part not in message] == [], message


MORE = [
    ("data=mnist1", "data=mnist1", "'mnist1d'"),
    ("logger=[tensorbord]", "logger", "'tensorboard'"),
    ("model.widht=3", "model.widht", "'width'"),
    ("trainer.max_epoch=3", "trainer.max_epoch", "'max_epochs'"),
    ("optimizer.betas=[0.9,1.5]", "optimizer", "1.5"),
    ("model.width=wide", "model.width", "'wide'"),
    ("model.activation=rleu", "activation", "'relu'"),
    ("data.label_noise=2", "data.label_noise", "2"),
    ("trainer.max_epochs=many", "trainer.max_epochs", "'many'"),
    ("step.accumulate=0", "step.accumulate", "0"),
    ("risk.every=0", "risk.every", "0"),
    ("regularizer=[dropout] regularizer.dropout.p=1.5", "regularizer.dropout.p", "1.5"),
    ("regularizer=[l2] regularizer.l2.coefficient=-1", "l2", "-1"),
    ("scheduler=step scheduler.step_size=none", "scheduler.step_size", "'none'"),
    ("scheduler=cyclic scheduler.mode=triangel", "scheduler", "triangel"),
    ("loss=hinge data=diabetes", "loss=hinge is for classification", "mse"),
    ("loss=cross_entropy data=diabetes", "regression", "mse"),
    ("optimizer=custom optimizer._target_=torch.optim.SGD +optimizer.mometum=1",
     "optimizer.mometum", "'momentum'"),
    ("data.val=0.6 data.test=0.5", "data.val", "data.test"),
    ("data.num_train=0", "data.num_train", "0"),
    ("optmizer=adam", "optmizer", "'optimizer'"),
    ("data.batchsize=3", "data.batchsize", "'batch_size'"),
    ("data.source.shuffel=1", "data.source.shuffel", "conf/data/iris.yaml"),
    ("step.acumulate=2", "step.acumulate", "'accumulate'"),
    ("model=linear model.width=3", "model.width", "conf/model/linear.yaml"),
    ("scheduler=constant scheduler.gamma=0.1", "scheduler.gamma", "conf/scheduler/constant.yaml"),
    ("optimizer.betas=0.9", "optimizer.betas", "0.9"),
    ("data.batch_size=all", "data.batch_size", "full"),
    ("data.standardize=yes_please", "data.standardize", "feature"),
    ("trainer.accelerator=gpuu", "trainer.accelerator", "'gpu'"),
    ("step.clip.norm=0", "step.clip.norm", "0"),
    ("threads=0", "threads", "0"),
    ("seed=one", "seed", "'one'"),
    ("scheduler=exponential scheduler.gamma=fast", "scheduler.gamma", "'fast'"),
    ("loss=bce data=diabetes", "regression", "mse"),
    ("optimizer=lbfgs data.batch_size=full step.clip.norm=1", "step.clip.norm", "LBFGS"),
    ("step.clip.norm=1 step.clip.value=1", "step.clip", "norm and value"),
    ("trainer.precision=16-true", "trainer.precision", "NaN"),
    ("data=diabetes loss=mse data.label_noise=some", "data.label_noise", "some"),
    ("optimizer=custom", "optimizer._target_", "no value"),
    ("optimizer=custom optimizer._target_=nowhere.SGD", "optimizer._target_", "nowhere"),
    ("optimizer.lr", "'optimizer.lr' is no override", "key=value"),
    ("optimizer.lr=[1", "optimizer.lr=[1", "the bracket [ is not closed"),
    # what asks for the curvature of J
    ("optimizer=newton step.clip.value=1", "step.clip.value", "Newton"),
    ("optimizer=newton trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed", "64-true"),
    ("optimizer=newton compile=true", "compile=false", "Newton"),
    ("optimizer=newton optimizer.max_parameters=10", "optimizer.max_parameters", "newton_cg"),
]  # fmt: skip

WITHOUT_DATA = [
    ("model=mlp", "data=none has none", "model=rosenbrock"),
    ("model=rosenbrock data=iris", "model=rosenbrock", "data=none"),
    ("model=rosenbrok", "conf/model has no option 'rosenbrok'", "'rosenbrock'"),
    ("model=beale model.start=[1]", "model.start", "takes 2"),
    ("model=beale initializer=zeros", "initializer=zeros", "model.start"),
    ("model=beale regularizer=[mixup]", "regularizer=mixup", "leave mixup out"),
    ("model=beale loss=mse", "loss=mse is for regression", "loss=value"),
]  # fmt: skip


def complaint(overrides):
    """What composing, checking and assembling say, without a command, which costs far more."""
    with pytest.raises(ConfigError) as error:
        cfg = compose(overrides)
        check_config(cfg)
        recipe = assemble(cfg)
        recipe.schedule(recipe.optimizer(recipe.model), 100)
    return str(error.value)


@pytest.mark.parametrize("case", MORE, ids=lambda case: case[0])
def test_in_this_process(tiny, case):
    overrides, *named = case
    message = complaint([*tiny.overrides, *overrides.split()])
    assert "\n" not in message
    assert [part for part in named if part not in message] == [], message


@pytest.mark.parametrize("case", WITHOUT_DATA, ids=lambda case: case[0])
def test_without_data(case):
    overrides, *named = case
    message = complaint(["data=none", *overrides.split()])
    assert "\n" not in message
    assert [part for part in named if part not in message] == [], message


def test_compiling_without_a_compiler(tiny, tmp_path, monkeypatch):
    inductor = pytest.importorskip("torch._inductor.config")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()  # nothing compiled before
    with inductor.patch({"cpp.cxx": (None, "no-such-compiler")}):
        message = complaint([*tiny.overrides, "compile=true"])
    assert "\n" not in message
    assert "compile=true" in message and "C++ compiler" in message and "no-such-comp" in message


FILES = [
    ("arrays", "data.source.path=nowhere.npz", None, "data.source.path", "nowhere.npz"),
    ("arrays", "data.source.path=x.npz", b"not an npz", "data.source.path", "x.npz"),
    ("arrays", "data.source.path=x.npz", b"", "data.source.path", "x.npz"),
    ("arrays", "", None, "data.source.path", ".npz"),
    ("table", "data.source.path=x.csv data.source.target=b", b"a,b\n", "x.csv", "row"),
    ("table", "data.source.path=x.csv data.source.target=c", b"a,b\n1,2\n3,4\n", "'c'", "target"),
    ("table", "data.source.path=x.csv data.source.target=b", b"a,b\n1,2\n3,4,5\n", "x.csv", "line"),
    ("table", "data.source.path=x.csv data.source.target=b", b"a,b\n1,x\n,y\n", "'a'", "missing"),
    ("table", "data.source.path=x.csv", b"a,b\n1,x\n2,y\n", "data.source.target", "b"),
    ("table", "data.source.path=x.parquet data.source.target=b", b"PAR", "x.parquet", "Parquet"),
    ("table", "data.source.path=x.xls data.source.target=b", b"?", "x.xls", ".csv"),
]  # fmt: skip


@pytest.mark.parametrize("case", FILES, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
def test_a_missing_or_malformed_file(refused, here, case):
    data, overrides, content, *named = case
    if content is not None:
        (here / overrides.split()[0].partition("=")[2]).write_bytes(content)
    message = refused([f"data={data}", *overrides.split()])
    assert [part for part in named if part not in message] == [], message


def test_arrays_that_are_no_data(refused, here):
    np.savez(here / "x.npz", x=np.full((9, 2), np.nan), y=np.arange(9))
    assert "NaN" in refused(["data=arrays", "data.source.path=x.npz"])
    np.savez(here / "x.npz", inputs=np.zeros((9, 2)), y=np.arange(9))
    assert "no array 'x'" in refused(["data=arrays", "data.source.path=x.npz"])
    np.savez(here / "x.npz", x=np.zeros((9, 2)), y=np.zeros(8, dtype=int))
    assert "9" in refused(["data=arrays", "data.source.path=x.npz"])
    np.savez(here / "x.npz", x=np.zeros((2, 2)), y=np.array([0, 1]))
    assert "split" in refused(["data=arrays", "data.source.path=x.npz"])


def test_a_folder_that_cannot_be_written(refused, here):
    (here / "file").write_text("not a folder")
    assert "hydra.run.dir: cannot write" in refused(["hydra.run.dir=file/run"])
    assert "hydra.run.dir: cannot write" in refused(["hydra.run.dir=file"])
    assert "hydra.run.dir is empty" in refused(["hydra.run.dir="])
    assert "no run's (file)" in refused(["hydra.run.dir=."])
    message = refused(["-m", "seed=1,2", "hydra.sweep.dir=file/sweep"])
    assert "hydra.sweep.dir: cannot write" in message


def test_resuming(tiny, tmp_path, request):
    tiny(tmp_path / "run")
    refused = request.getfixturevalue("refused")
    status = tmp_path / "run" / "status.json"
    status.write_text(status.read_text().replace("finished", "interrupted"))
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    (tmp_path / "empty").mkdir()
    for args, named in (
        (["resume=rnu"], "did you mean 'run'"),
        (["resume=run", "optimizer.lr=1"], "leave out optimizer.lr=1"),
        (["resume=empty"], "is not the folder of a run"),
        (["resume=run"], "last.ckpt is not a readable checkpoint"),
    ):
        assert named in refused(args, start=["train"])
    assert '"interrupted"' in status.read_text()


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "draw", "resume"])
def test_a_damaged_configuration_of_a_run_is_named(tiny, tmp_path, request, command):
    tiny(tmp_path / "run")
    refused = request.getfixturevalue("refused")
    (tmp_path / "run" / "config.yaml").write_text("a: [1")
    status = tmp_path / "run" / "status.json"
    status.write_text(status.read_text().replace("finished", "interrupted"))
    start = {"resume": ["train", "resume=run"]}.get(command, [command, "run"])
    assert "config.yaml is damaged" in refused([], start=start)


def test_a_folder_that_holds_a_run(refused, here):
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("{}")
    (here / "run" / "status.json").write_text("{}")
    assert "already holds a run; continue it with resume=" in refused(["hydra.run.dir=run"])


def test_several_mistakes_at_once(tiny, here, capfd):
    overrides = ["optimizer.lr=fast", "model.width=wide", "threads=0"]
    assert main(["train", *tiny.overrides, *overrides]) == 2
    err = capfd.readouterr().err
    lines = err.removeprefix("error: ").splitlines()
    assert len(lines) == 3 and err.count("error: ") == 1
    assert {line.split()[0].rstrip(":") for line in lines} == {
        "optimizer.lr",
        "model.width",
        "threads",
    }


def test_in_a_sweep_each_cell_is_told_apart(tiny, here, capfd):
    assert main(["train", "-m", *tiny.overrides, "optimizer.lr=fast,slow"]) == 2
    err = capfd.readouterr().err
    assert err.count("error: optimizer.lr=") == 2 and "Traceback" not in err
    assert not list(here.rglob("status.json"))


@pytest.mark.parametrize("override", ["~data", "data.source=3,4"])
def test_a_sweep_without_data_is_refused(override, here, capfd):
    assert main(["train", "-m", override, "seed=1,2"]) == 2
    out, err = capfd.readouterr()
    assert "data: nothing is chosen" in err or "data.source is 3: it is a part of its own" in err
    assert "Traceback" not in err + out and " refused" in out
