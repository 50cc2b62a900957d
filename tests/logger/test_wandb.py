import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import cache

import pytest

from truerisk.core.errors import ConfigError
from truerisk.logger import WandB

CONFIG = {
    "data": {"_target_": "truerisk.data.Iris"},
    "model": {"_target_": "truerisk.model.MLP", "width": 100},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.125},
    "regularizer": {"l2": {"coefficient": 0.5}},
}


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    """A home without credentials, and a network that is not there."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def records():
    """The records in a run's offline files of a kind, read once by W&B's own command."""

    @cache
    def read(folder):
        found = []
        for part in sorted((folder / "wandb").glob("offline-run-*")):
            shown = subprocess.run(
                [sys.executable, "-m", "wandb", "leet", "inspect", "--json", part],
                capture_output=True, check=True,
            ).stdout  # fmt: skip
            found += map(json.loads, shown.splitlines())
        return found

    return lambda folder, kind: [record for record in read(folder) if record["type"] == kind]


@pytest.fixture
def series(records):
    """One logged quantity of a run, with its steps."""

    def read(folder, name):
        rows = [row["history"]["item"] for row in records(folder, "history")]
        return [(row["_step"], row[name]) for row in rows if name in row]

    return read


def test_offline_files_hold_series_config_and_exit_code(records, series, tmp_path, capfd):
    folder = tmp_path / "run"
    logger = WandB(folder, "id1", CONFIG, mode="offline")
    other = WandB(tmp_path / "other", "id2", mode="offline")
    for step in range(3):
        logger.log_metrics({"risk/val": step / 8, "odd": math.nan, "epoch": step}, step=10 * step)
        other.log_metrics({"risk/val": -1.0}, step=step)
    logger.log_metrics({"odd": math.inf}, step=30)
    logger.log_metrics({"risk/test": 0.5}, step=20)
    logger.finalize("failed")
    other.finalize("success")
    out, err = capfd.readouterr()
    assert out == err == ""
    assert series(folder, "risk/val") == [(0, 0), (10, 0.125), (20, 0.25)]
    assert series(folder, "odd") == [(0, "NaN"), (10, "NaN"), (20, "NaN"), (30, "Infinity")]
    (run,) = (record["run"] for record in records(folder, "run"))
    assert run["config"]["update"].items() >= CONFIG.items()
    assert (run["run_id"], run["project"], run["resume"]) == ("id1", "truerisk", True)
    assert (run["display_name"], run["run_group"]) == ("iris-mlp-adam run", "iris-mlp-adam")
    assert run["tags"] == ["iris", "mlp", "adam", "l2"]
    assert [r["exit"].get("exit_code", 0) for r in records(folder, "exit")] == [1]
    assert [r["exit"].get("exit_code", 0) for r in records(tmp_path / "other", "exit")] == [0]
    summaries = [record["summary"]["update"] for record in records(folder, "summary")]
    assert {"risk/test": 0.5} in summaries


@pytest.mark.parametrize("more", [0, 3])
def test_a_run_goes_on_without_the_service(tmp_path, more):
    """A cluster that stops a job sends SIGTERM to all its processes."""
    code = (
        "import os, signal, subprocess, sys, time; from truerisk.logger import WandB\n"
        "logger = WandB(sys.argv[1], 'id1', mode='offline')\n"
        "logger.log_metrics({'risk/val': 0.5}, step=1)\n"
        "subprocess.run(['pkill', '-TERM', '-P', str(os.getpid())], check=True)\n"
        "time.sleep(1)\n"
        "for step in range(2, 2 + int(sys.argv[2])):\n"
        "    logger.log_metrics({'risk/val': 0.25}, step=step)\n"
        "logger.finalize('success')\n"
        "print('and on')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(more)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "and on\n"), ended.stderr
    assert ended.stderr.count("W&B is out of reach") == 1 and "metrics.csv goes on" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_killed_run_leaves_nothing_behind_and_goes_on_under_its_id(records, series, tmp_path):
    folder = tmp_path / "run"
    code = (
        "import os, sys, time; from truerisk.logger import WandB\n"
        "logger = WandB(sys.argv[1], 'id1', mode='offline')\n"
        "for step in range(4): logger.log_metrics({'risk/val': step / 8}, step)\n"
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    run.stdout.readline()
    helpers = [p for p in children() if f"--pid {run.pid}" in p]
    run.send_signal(signal.SIGKILL)
    run.communicate()
    again = WandB(folder, "id1", mode="offline")
    for step in range(4, 6):
        again.log_metrics({"risk/val": step / 8}, step=step)
    again.finalize("success")
    again.log_metrics({"risk/test": 0.5}, step=5)
    again.finalize("success")
    assert {record["run"]["run_id"] for record in records(folder, "run")} == {"id1"}
    assert series(folder, "risk/val")[-2:] == [(4, 0.5), (5, 0.625)]
    assert series(folder, "risk/test") == [(5, 0.5)]
    assert len(helpers) == 1
    wait_until(lambda: not any(f"--pid {run.pid}" in p for p in children()))


def children():
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if "wandb-core" in line]


def wait_until(done, seconds=20):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


MODES = [
    ({}, "", "offline"),
    ({"WANDB_API_KEY": "a" * 40}, "", "online"),
    ({}, f"machine api.wandb.ai login user password {'b' * 40}", "online"),
    ({"WANDB_API_KEY": "a" * 40, "WANDB_MODE": "disabled"}, "", "disabled"),
    ({"WANDB_MODE": "online"}, "", "online"),
]
# W&B reads its settings once a process, and takes seconds to import: a fork for each
TELL_MODES = """
import json, os, sys
from pathlib import Path
import wandb
from truerisk.logger.wandb import resolve_mode
for environment, netrc, _ in json.loads(sys.argv[1]):
    Path.home().joinpath(".netrc").write_text(netrc)
    child = os.fork()
    if not child:
        os.environ.update(environment)
        print(resolve_mode("auto"), flush=True)
        wandb.teardown()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_auto_mode_is_online_only_with_an_account(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-c", TELL_MODES, json.dumps(MODES)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert shown.stdout.split() == [mode for _, _, mode in MODES]
    assert shown.stderr == ""


def test_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"logger\.wandb\.mode='onlin': did you mean 'online'\?"):
        WandB(tmp_path, "id", mode="onlin")
