import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import truerisk
from truerisk.cli import COMMANDS, main
from truerisk.config.compose import ConfigLoader
from truerisk.config.parts import conf_dir
from truerisk.core.errors import ConfigError, UserError
from truerisk.outcome import Outcome
from truerisk.run import RunFolder, _versions


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(here, monkeypatch):
    """What `train_config` was called with; how it ends depends on `seed.base`."""
    called = []
    endings = {2: "diverged", 3: "interrupted", 4: "failed"}

    def train_config(cfg, folder):
        called.append((cfg, folder))
        if cfg.seed.base == 1:
            raise ConfigError("data.source.path: there is no file x.csv")
        if cfg.seed.base == 9:
            raise FileNotFoundError(2, "a bug", "x")
        (folder / "status.json").touch()
        status = endings.get(cfg.seed.base, "finished")
        return SimpleNamespace(
            folder=folder,
            run=RunFolder(folder),
            status=status,
            reason="SIGTERM" if status == "interrupted" else "",
            summary={"risk/val": SimpleNamespace(value=0.25)},
            report=lambda: print("the table"),
        )

    monkeypatch.setattr("truerisk.fit.train_config", train_config)
    monkeypatch.setattr("truerisk.fit.train_cell", lambda cfg, at, _: train_config(cfg, at))
    return called


def folders(here):
    return [p for p in here.rglob("*") if p.is_dir()]


def test_a_run_gets_a_fresh_folder_and_reports(here, runs, capsys):
    assert main(["train", "model=linear", "seed=5"]) == 0
    cfg, folder = runs[0]
    assert (cfg.seed.base, cfg.model._target_) == (5, "truerisk.model.Linear")
    assert folder.parent.parent == here / "outputs"
    assert [p.name for p in folder.iterdir()] == ["status.json"]
    assert capsys.readouterr().out == "the table\n"


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 2), (2, 3), (3, 143), (4, 1)])
def test_exit_codes(runs, seed, code):
    assert main(["train", f"seed={seed}"]) == code


def test_a_mistake_found_inside_the_job_leaves_one_line_and_no_folder(here, runs, capsys):
    assert main(["train", "seed=1"]) == 2
    assert capsys.readouterr() == ("", "error: data.source.path: there is no file x.csv\n")
    assert folders(here) == [here / "outputs"]


def test_a_folder_that_another_process_of_the_run_took_back_first(here, runs, capsys, monkeypatch):
    take = Path.rmdir
    monkeypatch.setattr(Path, "rmdir", lambda path: (take(path), take(path)))
    assert main(["train", "seed=1"]) == 2
    assert capsys.readouterr().err == "error: data.source.path: there is no file x.csv\n"


@pytest.mark.parametrize(
    "args", [["optimizer=adm"], ["-m", "optimizer=adam,adm"], ["-m", "seed=1,2", "datta=x"]]
)
def test_a_mistake_in_the_overrides_leaves_one_line_and_nothing_else(here, runs, capsys, args):
    assert main(["train", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert list(here.rglob("*.*")) == [] and runs == []


def test_a_bug_is_not_taken_for_a_mistake(runs, capsys, monkeypatch):
    # this file is no part of the package, so its lines are told as those of a user's own code
    assert main(["train", "seed=9"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: FileNotFoundError: [Errno 2] a bug")  # nothing of Hydra's before
    assert "test_cli.py, line" in err
    monkeypatch.setattr("truerisk.core.errors.list_own_lines", lambda error: [])
    monkeypatch.setattr("truerisk.cli.list_own_lines", lambda error: [])
    with pytest.raises(FileNotFoundError, match="a bug"):
        main(["train", "seed=9"])


@pytest.mark.parametrize("key", ["run", "sweep"])
def test_a_folder_that_cannot_be_made(runs, capsys, key):
    args = ["-m"] if key == "sweep" else []
    assert main(["train", *args, f"hydra.{key}.dir=/proc/x"]) == 2
    assert f"error: hydra.{key}.dir: cannot write /proc/x" in capsys.readouterr().err


def test_a_sweep_runs_every_cell_and_counts(runs, capsys):
    assert main(["train", "-m", "seed=0,1,2", "report=false"]) == 2
    out, err = capsys.readouterr()
    assert [cfg.seed.base for cfg, _ in runs] == [0, 1, 2]
    assert err == "error: seed=1: data.source.path: there is no file x.csv\n"
    assert "seed=2: diverged  /" in out
    assert out.endswith("3 runs: 1 finished, 1 refused, 1 diverged\n")


@pytest.mark.parametrize(("seeds", "code"), [("0,2", 0), ("2,2", 3), ("0,4,1", 1), ("0,9", 1)])
def test_exit_codes_of_sweeps(runs, seeds, code, capsys):
    assert main(["train", "-m", f"seed=choice({seeds})"]) == code


def test_an_interrupted_sweep_stops(runs):
    with pytest.raises(SystemExit) as stop:
        main(["train", "-m", "seed=0,3,0"])
    assert stop.value.code == 143 and len(runs) == 2


@pytest.mark.parametrize(
    ("args", "count"), [(["seed=5"], 1), (["study=s", "seed=5"], 3), (["-m", "seed=5,6"], 2)]
)
def test_what_is_asked_for_is_composed_once(runs, monkeypatch, args, count):
    """A single run once; a sweep what its cells share, what they are made of, no cell by itself."""
    compose, composed = ConfigLoader.load_configuration, []

    def noted(loader, name, *rest):
        composed.append(name)
        return compose(loader, name, *rest)

    monkeypatch.setattr(ConfigLoader, "load_configuration", noted)
    assert main(["train", "report=false", *args]) == 0
    assert len(composed) == count


def test_mode_from_the_configuration(runs):
    assert main(["train", "hydra.mode=MULTIRUN", "seed=5,6"]) == 0
    assert [cfg.seed.base for cfg, _ in runs] == [5, 6]


def test_resume_works_in_the_runs_own_folder(here, runs):
    folder = here / "lr=0.1, it's"
    folder.mkdir()
    assert main(["train", f"resume={folder.name}"]) == 0
    assert runs[0][1] == folder and runs[0][0].resume == folder.name
    assert folders(here) == [folder]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["resume=rnu"], "did you mean 'run'"),
        (["resume=run", "seed=3"], "leave out seed.base=3"),
        (["resume=run", "-m"], "leave out --multirun"),
        (["resume=none/at/all"], "no folder none/at/all"),
    ],
)
def test_resume_is_refused(here, runs, capsys, args, message):
    (here / "run").mkdir()
    assert main(["train", *args]) == 2
    assert message in capsys.readouterr().err and runs == []


def test_an_outcome_travels_and_counts_as_a_number():
    sent = Outcome(0.5, "diverged", "step 3")
    received = pickle.loads(pickle.dumps(sent))
    assert (float(received), received, received.code) == (0.5, sent, 3)
    assert (received.status, received.reason, received.new) == ("diverged", "step 3", True)
    assert (
        math.isnan(Outcome(math.nan, "refused").value)
        and Outcome(0.0, "interrupted", "SIGINT").code == 130
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["parts", "modle"], "did you mean 'model'"),
        (["train", "--config-dir=nowhere"], "--config-dir: there is no folder nowhere"),
        (["evaluate", "nowhere"], "evaluate: there is no folder nowhere"),
        (
            ["train", "--confg-dir=x"],
            "truerisk train: there is no option --confg-dir; did you mean '--config-dir'?",
        ),
        (["train", "--multirunn"], "there is no option --multirunn; did you mean '--multirun'?"),
        (["train", "-z", "seed=1"], "there is no option -z; known: "),
        (["train", "--config-dir"], "argument --config-dir/-cd: expected one argument"),
        (["train", "--cfg=jb"], "invalid choice: 'jb'"),
        (
            ["plan", "--nodse", "3"],
            "truerisk plan: there is no option --nodse; did you mean '--node",
        ),
        (["report", "--ot=x", "."], "there is no option --ot; did you mean '--out'?"),
        (["reproduce", "--qick"], "there is no option --qick; did you mean '--quick'?"),
        (["evaluate"], "truerisk evaluate: the following arguments are required: folder"),
        (["report", ""], "report: the folder's name is empty"),
        (["draw", ""], "draw: the folder's name is empty"),
        (["report", ".", "--out="], "--out is empty"),
        (["export", ".", "--out", ""], "--out is empty"),
        (["evaluate", ".", "model.width=3"], "model.width=3: an evaluation takes"),
        (["train", "--experimental-rerun=x"], "resume=FOLDER"),
        (["train", "--cfg=job", "--resolve", "+x=${y}"], "'y' not found"),
    ],
)
def test_a_wrong_command_line_gets_one_line(here, capsys, args, message):
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_evaluate_passes_folder_and_overrides(here, monkeypatch, capsys):
    seen = []

    def evaluate(folder, overrides, config_dir):
        seen.append((folder, overrides, config_dir))
        return SimpleNamespace(report=lambda: print("risks"))

    monkeypatch.setattr("truerisk.evaluate.evaluate", evaluate)
    (here / "run").mkdir()
    overrides = ["data=iris", "trainer.devices=1", "+risk.every=2"]
    assert main(["evaluate", "run", *overrides, "--config-dir", "mine"]) == 0
    assert seen == [(Path("run"), overrides, "mine")]
    assert capsys.readouterr().out == "risks\n"


def test_help_and_version(here, capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "truerisk parts [GROUP]" in text and all(f"truerisk {c} " in text for c in COMMANDS)
    assert main([]) == 2
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("truerisk finds out which training recipe lowers the risk")
    commands = [line.split()[1] for line in others if line.startswith("  truerisk ")]
    assert commands == ["train", "train", "parts", "report", "reproduce", "--help"]
    assert set(commands[:-1]) <= set(COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"truerisk {truerisk.__version__}\n"
    assert _versions()["truerisk"] == truerisk.__version__  # what metadata.json says
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "optimizer: adadelta, " in text and "_full_batch" not in text and "$" not in text[:-200]
    assert main(["train", "--info", "defaults"]) == 0
    assert main(["train", "--hydra-help"]) == 0


def test_cfg_shows_the_job_without_loading_torch(here):
    code = (
        "import sys; from truerisk.cli import main; main(['train', '--cfg', 'job', 'seed=3']);"
        "sys.exit(bool({'torch', 'numpy', 'pydantic', 'joblib', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed:\n  base: 3\n" in done.stdout and "hydra" not in done.stdout


def test_a_run_in_one_process_does_without_what_takes_longer_to_load(here):
    code = (
        "import sys; from truerisk.cli import main; "
        "main(['train', 'data=gaussians', 'trainer.max_epochs=1', 'figures=false']);"
        "slow = {'lightning', 'torchmetrics', 'pandas', 'torch._dynamo'};"
        "sys.exit(bool(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "validation" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "truerisk tr",
            "train plan reproduce parts evaluate predict generate export wandb-sweep report draw",
        ),
        ("truerisk train optimizer=adamw", "optimizer=adamw"),
        ("truerisk train optimizer=sgd optimizer.l", "optimizer.lr="),
        ("/usr/bin/truerisk train hydra/launcher=job", "hydra/launcher=joblib"),
        ("truerisk train --config-dir=mine model=od", "model=odd"),
        ("truerisk train nonsense=1 optimizer.l", ""),
        ("truerisk evaluate ", ""),
        (
            "truerisk train seed=1 ~s",
            "~scheduler ~step.clip ~step.clip.norm ~step.clip.value ~stop "
            "~stop.gradient_norm ~stop.relative_decrease",
        ),
        ("truerisk train ~o", ""),
    ],
)
def test_completion(here, monkeypatch, capsys, line, expected):
    (here / "mine" / "model").mkdir(parents=True)
    (here / "mine" / "model" / "odd.yaml").write_text("# Odd\n_target_: a.B\n")
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.strip() == expected


def test_bash_completes_with_the_installed_script(here):
    script = here / "bin" / "truerisk"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom truerisk.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    shell = """
    eval "$(truerisk train -sc install=bash)"
    COMP_WORDS=(truerisk train optimizer=adamw); COMP_CWORD=2
    COMP_LINE="truerisk train optimizer=adamw"; COMP_POINT=${#COMP_LINE}
    $(complete -p truerisk | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    echo "${COMPREPLY[@]}"
    """
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout.strip() == "optimizer=adamw", done.stderr


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_send_jobs_and_outcomes_across(here, capfd, launcher):
    """An interpolation that leads nowhere shows in the job, before anything heavy is imported."""
    args = ["-m", "seed=1,2", "+x=${nowhere}", f"hydra/launcher={launcher}"]
    assert main(["train", *args]) == 2
    assert "2 runs: 2 refused\n" in capfd.readouterr().out


def test_slurm_launcher_composes(capsys):
    args = ["--cfg=hydra", "-p=hydra.launcher", "hydra/launcher=submitit_slurm"]
    assert main(["train", *args, "hydra.launcher.partition=gpu"]) == 0
    assert "SlurmLauncher\n" in capsys.readouterr().out


def test_module_can_be_run(here):
    done = subprocess.run(
        [sys.executable, "-m", "truerisk", "train", "optimizer=adm"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: optimizer=adm: conf/optimizer has no option 'adm'; did you mean 'adam'?\n"
    )


def test_user_errors_are_config_errors_too():
    assert issubclass(ConfigError, UserError)


def test_the_keys_of_an_option_with_their_comments(capsys, tmp_path):
    assert main(["parts", "data", "table"]) == 0
    out = capsys.readouterr().out
    files = [conf_dir() / "data" / f"{name}.yaml" for name in ("table", "_split")]
    assert all(file.read_text().strip() in out for file in files)
    assert out.startswith("# conf/data/table.yaml\n")
    assert main(["parts", "data", "tabel"]) == 2
    assert "data has no option 'tabel'; did you mean 'table'?" in capsys.readouterr().err
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("# Mine\ndefaults: [adam]\nlr: 3\n")
    assert main(["parts", "-cd", str(tmp_path), "optimizer", "mine"]) == 0
    out = capsys.readouterr().out
    assert "# Mine" in out and "_target_: torch.optim.Adam" in out


def test_what_is_chosen_twice_is_told(capsys):
    assert main(["train", "data=iris", "data=wine", "trainer.max_epochs=1e3"]) == 2
    out, err = capsys.readouterr()
    assert "data=iris has no effect: data=wine comes after it" in out
    assert "takes int | null: write 1000" in err
    assert main(["train", "resume=a", "resume=b"]) == 2
    assert "one run is gone on with at a time" in capsys.readouterr().err
    assert main(["train", "model._target_=torch.nn.Linear"]) == 2
    err = capsys.readouterr().err
    assert "model._target_=torch.nn.Linear takes none of width" in err and err.count("\n") == 1


def test_help_of_a_plan(capsys):
    assert main(["plan", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("truerisk plan [GROUP") and "cells" not in out


@pytest.mark.parametrize("given", [["--target", "-1e-3"], ["--target", "-78.33"], ["--target=-5"]])
def test_the_target_of_a_report_may_lie_below_zero(given, capsys):
    assert main(["report", "nowhere", *given]) == 2
    assert "report: there is no folder nowhere" in capsys.readouterr().err


AGENT = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0"}  # on the second of two machines


@pytest.mark.parametrize(
    ("variables", "args", "said"),
    [
        ({"LOCAL_RANK": "0"}, [], 1),
        ({"LOCAL_RANK": "1"}, [], 0),
        ({**AGENT, "RANK": "0"}, [], 1),
        ({**AGENT, "RANK": "4"}, [], 0),
        ({"SLURM_PROCID": "0"}, ["trainer=ddp"], 1),
        ({"SLURM_PROCID": "1"}, ["trainer=ddp"], 0),
        # a run of its own
        ({"SLURM_PROCID": "1"}, [], 1),
    ],
)
def test_the_first_of_the_processes_tells_of_a_refusal(variables, args, said, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "optimizer=adm", *args]) == 2
    assert capsys.readouterr().err.count("error: ") == said


def test_what_a_part_does_as_it_is_deleted_is_done_at_the_end(tmp_path):
    # in a cycle, where nothing but a search for garbage finds it
    code = (
        "import sys; from truerisk.cli import main\n"
        "class Part:\n"
        "    def __del__(self): print('closed')\n"
        "part = Part(); part.own = part; del part\n"
        "main(['--version'])"
    )
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert end.stdout.splitlines()[1:] == ["closed"]
