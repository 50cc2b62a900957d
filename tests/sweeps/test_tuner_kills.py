"""Searches that are killed, start at once or lose workers have the trials they were asked for."""

from __future__ import annotations

import math
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from truerisk.config.cell_composer import CellComposer
from truerisk.config.compose import ConfigLoader, expand_short_forms, hydra_session
from truerisk.outcome import Outcome
from truerisk.sweeps.study_folder import StudyFolder
from truerisk.sweeps.sweeper.axis import quote_distributions
from truerisk.sweeps.sweeper.tuner import Tuner

ROOT = Path(__file__).parents[2]
SPACE = ("lr=loguniform(1e-6,1e2)", "width=interval(1.0,9.0)")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture(scope="module")
def loader():
    with hydra_session():
        yield ConfigLoader()


@pytest.fixture
def search(loader):
    """Search in a folder, with runs that end as a judge says; returns what was asked."""

    def work(tuner, folder, judge=lambda point: Outcome(len(point), "finished")):
        study = StudyFolder(folder / "s", CellComposer(loader))
        overrides = loader.read_overrides(quote_distributions(expand_short_forms(SPACE)))
        batches, seen = tuner.propose_batches(overrides, study), []
        batch = next(batches, None)
        while batch is not None:
            seen += [tuple(point) for point in batch]
            try:
                batch = batches.send([judge(point) for point in batch])
            except StopIteration:
                batch = None
        return seen

    return work


def read_trials(storage):
    import optuna

    summary, *others = optuna.get_all_study_summaries(storage)
    assert not others
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def in_sqlite(folder):
    return read_trials(f"sqlite:///{folder / 's/optuna.db'}")


def points_of(trials):
    return {tuple(sorted(trial.params.items())) for trial in trials}


def test_a_search_killed_anywhere_ends_with_the_trials_it_was_asked_for(search, tmp_path):
    from benchmarks.faults.kills import Verdict, kill_everywhere

    def work(folder):
        search(Tuner(trials=3, batch=2, sampler="random"), folder)

    def judge(folder, whole):
        trials = in_sqlite(folder)
        done = [t for t in trials if t.state.name == "COMPLETE" and t.value == 2]
        return Verdict(3 - len(done), len(trials) - len(points_of(done)))

    # `python -m benchmarks.faults tuning` kills at each of them, with runs that train
    tally = kill_everywhere("", work, judge, tmp_path, most=14)
    assert tally.kills == 14
    assert (tally.lost, tally.doubled, tally.places) == (0, 0, ())


def fork(work):
    """Call something in a fork; its process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def codes(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_launches_at_once_ask_for_no_trial_twice_and_none_too_many(search, tmp_path):
    def launch():
        search(Tuner(trials=6, sampler="random"), tmp_path)

    assert codes([fork(launch) for _ in range(3)]) == [0, 0, 0]
    found = in_sqlite(tmp_path)
    assert [t.state.name for t in found] == ["COMPLETE"] * 6 and len(points_of(found)) == 6


def test_a_trial_of_a_live_launch_is_its_own_and_that_of_a_dead_one_is_taken_up(search, tmp_path):
    ours, theirs = os.pipe()

    def hang(point):
        os.write(theirs, b".")
        signal.pause()

    first = fork(lambda: search(Tuner(trials=3, sampler="random"), tmp_path, hang))
    os.read(ours, 1)
    beside = search(Tuner(trials=3, sampler="random"), tmp_path)
    assert len(beside) == 2 and in_sqlite(tmp_path)[0].state.name == "RUNNING"
    os.kill(first, signal.SIGKILL)
    assert codes([first]) == [-signal.SIGKILL]
    after = search(Tuner(trials=3, sampler="random"), tmp_path)
    assert len(after) == 1 and after[0] not in beside
    assert [t.state.name for t in in_sqlite(tmp_path)] == ["COMPLETE"] * 3


def test_a_trial_whose_worker_is_lost_is_asked_again_and_not_for_ever(search, tmp_path):
    lost = Outcome(math.nan, "failed", "its process ended with SIGKILL", lost=True)
    ends = iter([lost, lost, Outcome(1.0, "finished"), lost, lost, lost, Outcome(2.0, "finished")])
    seen = search(Tuner(trials=3, sampler="random"), tmp_path, lambda point: next(ends))
    assert seen[0] == seen[1] == seen[2] and seen[3] == seen[4] == seen[5] and len(set(seen)) == 3
    assert [t.state.name for t in in_sqlite(tmp_path)] == ["COMPLETE", "FAIL", "COMPLETE"]


@pytest.fixture(scope="module")
def server():
    sys.path.insert(0, str(ROOT))
    pytest.importorskip("psycopg", reason="psycopg is in the extra for tests")
    from benchmarks.faults.postgres import find_server, serve

    if find_server() is None:
        pytest.skip("there is no PostgreSQL here (Debian's package: postgresql)")
    with serve() as url:
        yield url


def test_four_workers_share_a_search_on_postgresql_and_one_is_killed(search, server, tmp_path):
    """They share no folder: all they have in common is the server."""
    theirs, ours = os.pipe()

    def end(point):
        os.kill(os.getpid(), signal.SIGKILL)

    def wait(point):
        os.read(theirs, 1)  # until the one that is killed, the last that holds the other end, is
        return Outcome(len(point), "finished")

    def launch(number, judge):
        if number:
            os.close(ours)
        tuner = Tuner(trials=12, sampler="random", storage=server)
        search(tuner, tmp_path / str(number), judge)

    children = [
        fork(partial(launch, number, (end, wait, wait, wait)[number])) for number in range(4)
    ]
    os.close(ours)
    assert codes(children) == [-signal.SIGKILL, 0, 0, 0]
    found = read_trials(server)
    assert [t.state.name for t in found] == ["COMPLETE"] * 12 and len(points_of(found)) == 12


def test_a_pool_whose_worker_is_killed_ends_with_all_trials(tiny, tmp_path, monkeypatch):
    from truerisk import fit
    from truerisk.cli import main

    monkeypatch.chdir(tmp_path)
    train = fit.train_cell

    def killed_once(cfg, folder, facts):
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train(cfg, folder, facts)

    monkeypatch.setattr(fit, "train_cell", killed_once)
    search = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "hydra.sweeper.sampler=random"]
    line = [*tiny.overrides, *search, "optimizer.lr=interval(0.01,0.1)", "study=s", "report=false"]
    main(["train", "-m", *line, "hydra/launcher=pool", "hydra.launcher.slots=1"])
    assert [t.state.name for t in read_trials("sqlite:///outputs/s/optuna.db")] == ["COMPLETE"] * 3
