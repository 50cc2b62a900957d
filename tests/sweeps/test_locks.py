"""Launches side by side share the cells of a study: none is done twice, no file is harmed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from truerisk import fit
from truerisk.run import RunFolder
from truerisk.sweeps import locks
from truerisk.sweeps.locks import SILENCE, find_begun, lock_cells
from truerisk.sweeps.run_cell import run_cell
from truerisk.sweeps.study_folder import StudyFolder


def test_two_launches_at_once(sweep, cells, tiny, fork, here, monkeypatch):
    seeds = range(8)
    train = fit.train_cell

    def noted(cfg, folder, facts):
        with (here / "begun").open("a") as file:
            file.write(f"{os.getpid()} {cfg.seed.base}\n")
        return train(cfg, folder, facts)

    monkeypatch.setattr(fit, "train_cell", noted)
    children = [fork(lambda: sweep("seed=range(8)"), f"{i}.txt") for i in range(2)]
    ends = [child.wait() for child in children]
    assert [end.code for end in ends] == [0, 0], [end.text for end in ends]
    begun = [line.split() for line in (here / "begun").read_text().splitlines()]
    assert sorted(int(seed) for _, seed in begun) == list(seeds)
    assert {int(pid) for pid, _ in begun} == {child.pid for child in children}
    assert {run.status for run in cells().values()} == {"finished"} and len(cells()) == 8
    assert not list(here.rglob("*.part"))
    for seed in (0, 7):
        alone = tiny(here / f"alone{seed}", [f"seed={seed}"])
        assert alone.run.metrics.read_bytes() == cells()[f"seed={seed}"].run.metrics.read_bytes()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "s" / "seed=1-0123456789"
    folder.mkdir(parents=True)
    return folder


def claimed(folder):
    with lock_cells([folder]) as mine:
        return mine == [folder]


def test_a_claim_keeps_others_out_and_ends_with_its_process(folder, fork, tmp_path):
    def hold():
        with lock_cells([folder]):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert not claimed(folder)
    assert claimed(folder.with_name("seed=2-123456789a"))
    assert not claimed(folder)  # closing the file for the other cell has given nothing back
    child.signal(signal.SIGKILL)
    child.wait()
    assert claimed(folder)


def test_within_a_process_too(folder):
    with lock_cells([folder]) as mine, lock_cells([folder]) as again:
        assert (mine, again) == ([folder], [])
    assert claimed(folder)


def test_a_machine_that_shares_no_locks(folder, monkeypatch):
    run = RunFolder(folder)
    monkeypatch.setattr(socket, "gethostname", lambda: "far")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run.set_status("running")
    assert claimed(folder)  # ours: this job, put back in line
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setattr(socket, "gethostname", lambda: "near")
    assert not claimed(folder)
    past = time.time() - SILENCE - 10
    os.utime(folder / "status.json", (past, past))
    assert claimed(folder)
    run.touch()
    assert not claimed(folder)
    monkeypatch.setattr(socket, "gethostname", lambda: "far")
    run.set_status("interrupted", "SIGTERM")
    monkeypatch.setattr(socket, "gethostname", lambda: "near")
    assert claimed(folder)


def begin(folder):
    with lock_cells([folder]) as mine:
        found = find_begun([folder], empty=not mine)[folder]
        found.mkdir(exist_ok=True)
        (found / "config.yaml").touch()
    return found


def test_a_cell_begun_meanwhile_under_another_name_is_found(folder, fork):
    study = folder.parent
    (study / "seed=0-aaaaaaaaaa").mkdir()
    assert begin(folder) == folder  # all that is in the study has been looked at
    ours, theirs = (study / f"optimizer.lr={lr}-bbbbbbbbbb" for lr in ("0.1", "1e-1"))
    assert fork(lambda: int(begin(theirs) != theirs)).wait().code == 0
    ours.mkdir()  # Hydra makes the folder of a job before it begins
    assert begin(ours) == theirs
    # what was told is lost, and the folders are looked at again
    os.truncate(study / ".claims", 0)
    other = study / "optimizer.lr=1e0-cccccccccc"
    other.mkdir()
    (other / "config.yaml").touch()
    assert begin(study / "optimizer.lr=1-cccccccccc") == other


def test_a_cell_is_told_though_its_folder_was_made_before_it_began(folder, fork):
    """Hydra makes the folder of a job first, and another command may have looked before."""
    theirs = folder.with_name("seed=01-0123456789")

    def begin_job():
        theirs.mkdir()
        return int(begin(theirs) != theirs)

    begin(folder.with_name("seed=0-aaaaaaaaaa"))  # all that is in the study has been looked at
    assert fork(begin_job).wait().code == 0
    assert begin(folder) == theirs


def test_who_has_a_cell_is_waited_for_to_tell_its_name(folder, fork, tmp_path, monkeypatch):
    """Between its lock and its name another command finds a cell that has no other folder."""
    theirs = folder.with_name("seed=01-0123456789")

    def claim_slowly():
        tell = locks._tell_names

        def tell_late(folders):
            (tmp_path / "held").touch()
            time.sleep(0.3)
            tell(folders)

        monkeypatch.setattr(locks, "_tell_names", tell_late)
        theirs.mkdir()
        with lock_cells([theirs]):
            time.sleep(60)

    begin(folder.with_name("seed=0-aaaaaaaaaa"))  # all that is in the study has been looked at
    child = fork(claim_slowly)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with lock_cells([folder]) as mine:
        assert not mine and find_begun([folder], empty=True)[folder] == theirs
    child.signal(signal.SIGKILL)
    child.wait()


def test_a_name_that_was_told_and_not_begun_is_no_folder(folder, fork):
    theirs = folder.with_name("seed=01-0123456789")

    def claim():
        with lock_cells([theirs]):
            os.kill(os.getpid(), signal.SIGKILL)

    fork(claim).wait()
    assert theirs.name in (folder.parent / ".claims").read_text()
    with lock_cells([folder]):
        assert find_begun([folder], empty=True)[folder] == folder


@pytest.mark.parametrize("moved", [True, False])
def test_a_study_at_the_same_path_is_another_one(moved, tmp_path, monkeypatch, fork):
    """After a change of the working folder, or once the study has been deleted."""
    digits, place = "0123456789", tmp_path
    monkeypatch.chdir(place)
    begin(Path("s", f"an=older,and=longer,name=1-{digits}"))
    if moved:
        place = tmp_path / "elsewhere"
        place.mkdir()
        monkeypatch.chdir(place)
    else:
        shutil.rmtree("s")
    mine, theirs = Path("s", f"seed=1-{digits}"), Path("s", f"seed=1,lr=0.1-{digits}")

    def hold():
        with lock_cells([theirs]):
            theirs.mkdir()
            (theirs / "config.yaml").touch()
            (place / "held").touch()
            time.sleep(60)

    child = fork(hold)
    while not (place / "held").exists():
        time.sleep(0.01)
    assert not claimed(mine)
    child.signal(signal.SIGKILL)
    child.wait()
    with lock_cells([mine]):
        assert find_begun([mine])[mine] == theirs


def test_claims_one_by_one_look_at_a_study_once(folder, monkeypatch):
    """Each look takes as long as there are cells."""
    looks, look = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: looks.append(path) or look(path))
    for i in range(10):
        begin(folder.with_name(f"seed={i}-{i:010x}"))
    assert looks == [folder.parent]


def test_a_cell_in_others_hands_is_left_alone(folder):
    with lock_cells([folder]):
        ended = run_cell(None, folder)
    assert (ended.status, ended.code, ended.new) == ("elsewhere", 0, False)


def test_commands_that_name_cells_differently_share_their_folders(sweep, here, fork, monkeypatch):
    """Both have named their cells before the first folder is made."""
    barrier = multiprocessing.get_context("fork").Barrier(2)
    compose, train = StudyFolder.compose_cells, fit.train_cell

    def wait(self, points):
        cells = compose(self, points)
        barrier.wait(60)
        return cells

    def noted(cfg, folder, facts):
        with (here / "begun").open("a") as file:
            file.write(f"{folder.name}\n")
        return train(cfg, folder, facts)

    monkeypatch.setattr(StudyFolder, "compose_cells", wait)
    monkeypatch.setattr(fit, "train_cell", noted)
    commands = [("seed=range(3)", "optimizer.lr=0.05"), ("seed=2,1,0", "optimizer.lr=0.05,0.050")]
    children = [fork(partial(sweep, *given), f"{i}.txt") for i, given in enumerate(commands)]
    ends = [child.wait() for child in children]
    assert [end.code for end in ends] == [0, 0], [end.text for end in ends]
    folders = [path.name for path in (here / "outputs/s").iterdir() if path.is_dir()]
    begun = (here / "begun").read_text().split()
    assert len(folders) == 3 and sorted(begun) == sorted(folders)
    assert all(RunFolder(here / "outputs/s" / f).status()["status"] == "finished" for f in folders)
