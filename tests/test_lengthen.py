"""``resume=RUN trainer.max_epochs=…`` gives what that many epochs would have given."""

from __future__ import annotations

import pytest

import truerisk
from truerisk.core.errors import ConfigError, UserError
from truerisk.lengthen import Lengthening
from truerisk.result import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

RECIPES = {
    "plain": "",
    "noise, momentum, averages": "regularizer=[dropout,ema] optimizer=momentum",
    "a schedule in steps": "scheduler=step scheduler.step_size=5 scheduler.warmup=2",
    "plateau": "scheduler=plateau scheduler.patience=1",
    "known P": "data=gaussians data.source.num_samples=60 risk.true_stderr=0.3",
}


def lengthen(folder, *limits):
    return truerisk.train([f"resume={folder}", *limits])


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_the_longer_run_to_the_last_bit(tiny, tmp_path, recipe):
    overrides = [*tiny.overrides, "regularizer=[]", *RECIPES[recipe].split()]
    whole = truerisk.train([*overrides, "trainer.max_epochs=5"], folder=tmp_path / "whole")
    truerisk.train([*overrides, "trainer.max_epochs=2"], folder=tmp_path / "short")
    longer = lengthen(tmp_path / "short", "trainer.max_epochs=5")
    assert longer.status == "finished" and longer.config.trainer.max_epochs == 5
    assert longer.summary == whole.summary
    key = ["step", "name"]
    mine, theirs = (run.history.sort_values(key).reset_index(drop=True) for run in (longer, whole))
    assert mine.equals(theirs)


def test_a_run_that_time_has_ended_goes_on(tiny, tmp_path):
    overrides = [*tiny.overrides, "regularizer=[]", "trainer.max_epochs=5"]
    whole = truerisk.train(overrides, folder=tmp_path / "whole")
    folder = tmp_path / "short"
    short = truerisk.train([*overrides, "trainer.max_time=00:00:00:00"], folder=folder)
    assert short.run.status()["stop"]["kind"] == "time" and short.summary != whole.summary
    assert lengthen(folder, "trainer.max_time=00:01:00:00").summary == whole.summary


def test_so_it_does_where_another_process_has_begun_it_anew(tiny, tmp_path):
    overrides = [*tiny.overrides, "regularizer=[]", "trainer.max_time=00:00:00:00"]
    run = truerisk.train(overrides, folder=tmp_path).run
    checkpoint = load_checkpoint(run.last)
    assert checkpoint["truerisk"]["stop"]["kind"] == "time" and checkpoint["truerisk"]["stopped"]
    run.set_status("running")
    Lengthening(run, {"max_time": "00:01:00:00"}).reopen_checkpoint(checkpoint)
    assert not checkpoint["truerisk"]["stop"] and not checkpoint["truerisk"]["stopped"]


def test_what_depends_on_the_length_is_refused(tiny, tmp_path):
    for name, overrides, message in (
        ("cosine", ["scheduler=cosine"], "scheduler=cosine was spread over the 9 steps"),
        ("warm", ["scheduler.warmup=0.3"], "scheduler=constant was spread over"),
        ("swa", ["regularizer=[swa]"], "regularizer=swa begins at a share of the run"),
    ):
        run = tiny(tmp_path / name, overrides)
        before = (run.folder / "config.yaml").read_text(), run.run.metrics.read_bytes()
        with pytest.raises(ConfigError, match=message):
            lengthen(run.folder, "trainer.max_epochs=5")
        assert run.status == "finished"
        assert before == ((run.folder / "config.yaml").read_text(), run.run.metrics.read_bytes())


def test_what_is_no_lengthening_is_refused(tiny, tmp_path, capsys):
    run = tiny(tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"max_epochs=2 does not lengthen .* trainer.max_epochs=3"
    ):
        lengthen(run.folder, "trainer.max_epochs=2")
    with pytest.raises(UserError, match=r"leave out optimizer\.lr=1 .*trainer\.max_epochs"):
        lengthen(run.folder, "optimizer.lr=1")
    assert lengthen(run.folder).status == "finished"
    assert "trainer.max_epochs=… beside resume lengthens it" in capsys.readouterr().out
    early = tiny(tmp_path / "early", ["regularizer=[early_stopping]", "optimizer.lr=0",
                                      "regularizer.early_stopping.patience=1"])  # fmt: skip
    with pytest.raises(ConfigError, match="ended before its length"):
        lengthen(early.folder, "trainer.max_epochs=9")
    cell = tiny(tmp_path / "study" / "seed=1-0123456789")
    with pytest.raises(ConfigError, match="is a cell of the study study"):
        lengthen(cell.folder, "trainer.max_epochs=9")
    within = tiny(tmp_path / "within", ["trainer.max_steps=4"])
    with pytest.raises(ConfigError, match="ended within an epoch, after 4 steps of 3"):
        lengthen(within.folder, "trainer.max_steps=9")
