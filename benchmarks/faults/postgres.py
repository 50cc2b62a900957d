"""A PostgreSQL of one's own on a socket in a temporary folder, and searches that share it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.faults.kills import Tally, Work, fork_work, run_forked, spread
from benchmarks.faults.tuning import compare_trials, tune_with

TRIALS = 8
WORKERS = 4


def find_server() -> Path | None:
    """Find the folder of PostgreSQL's programs: Debian keeps it off the path."""
    for program in (shutil.which("pg_ctl"), *sorted(glob("/usr/lib/postgresql/*/bin/pg_ctl"))):
        if program is not None and Path(program).resolve().with_name("initdb").exists():
            return Path(program).resolve().parent
    return None


@contextmanager
def serve() -> Iterator[str]:
    """Start a server for the length of the block; yields the URL of a database.

    Raises:
        FileNotFoundError: there is no PostgreSQL here.
    """
    programs = find_server()
    if programs is None:
        raise FileNotFoundError("there is no PostgreSQL here (Debian's package: postgresql)")
    # the server refuses to run as root
    user = "postgres" if os.geteuid() == 0 else None
    with TemporaryDirectory(prefix="postgres-") as folder:
        if user is not None:
            shutil.chown(folder, user)

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, user=user, check=True, cwd=folder, stdout=subprocess.DEVNULL)

        call("initdb", "--auth=trust", "--username=truerisk", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        call("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://truerisk@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")


def make_database(url: str, name: str) -> str:
    """Make an empty database on the server; its URL."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.replace("/postgres?", f"/{name}?")


def share_trials(storage: str) -> Work:
    """Return the work of one of the launches that share a search."""
    options = [f"hydra.sweeper.storage='{storage}'", f"hydra.sweeper.trials={TRIALS}"]
    return tune_with("hydra.sweeper.sampler=random", *options)


def tallies(place: Path, quick: bool) -> Iterator[Tally]:
    """Four workers at once, one of them killed at each of its operations in turn."""
    from truerisk.sweeps.launcher.pool import warm_up

    warm_up()
    with serve() as url:
        most, at, kills, wrong, places = 6 if quick else 60, 0, 0, [0, 0, 0], []
        first = run_forked(share_trials(make_database(url, "whole")), place / "whole")
        for at in spread(range(1, len(first.operations) + 1), most):
            storage, folder = make_database(url, f"killed_{at}"), place / str(at)
            folder.mkdir()
            others = [fork_work(share_trials(storage), folder, f"-{i}") for i in range(1, WORKERS)]
            kills += run_forked(share_trials(storage), folder, at).killed
            for child, _ in others:
                os.waitpid(child, 0)
            run_forked(
                share_trials(storage), folder
            )  # for what was cut off when the others had ended
            verdict = compare_trials(storage, folder / "outputs/s", TRIALS)
            wrong = [a + b for a, b in zip(wrong, verdict, strict=True)]
            if any(verdict):
                places.append(f"{at}: {verdict}")
        yield Tally("optuna on PostgreSQL, one of four workers", kills, *wrong, tuple(places))
