"""A stop is a value in status.json; its sentence is for people."""

from __future__ import annotations

from truerisk.core.stop import SENTENCES, Stop, read_stop
from truerisk.run import RunFolder

HALVED = {"epoch": 5, "risk": 0.25, "rank": 3, "among": 4, "kept": 2}


def test_every_sentence_is_filled_from_the_detail():
    numbers = {"norm": 1e-4, "bound": 1e-3, "fallen": 0.1, "objective": 2.0, **HALVED}
    detail = {**numbers, "what": "the loss", "fault": "is not finite", "name": "SIGTERM"}
    texts = {kind: Stop(kind, 7, detail).describe() for kind in SENTENCES}
    assert texts["divergence"] == "step 7: the loss is not finite"
    halved = Stop("halving", 7, HALVED).describe()
    assert halved.startswith("successive halving: at epoch 5 its validation risk 0.25 is")
    assert texts["gradient_norm"] == "‖∇J‖ = 0.0001 is at most stop.gradient_norm=0.001"
    assert [kind for kind, text in texts.items() if not text] == ["patience"]


def test_it_comes_back_from_a_run_folder(tmp_path):
    run = RunFolder(tmp_path)
    stop = Stop("halving", 15, HALVED)
    run.set_status("finished", stop=stop)
    assert read_stop(run.status()) == stop
    assert run.status()["reason"] == stop.describe()


def test_a_status_of_the_version_before_has_the_sentence_alone():
    sentence = Stop("halving", 15, HALVED).describe()
    assert read_stop({"reason": sentence}) == Stop("halving", 0, {"epoch": 5})
    assert read_stop({"status": "finished", "reason": ""}) is None
    assert read_stop({"status": "failed", "reason": "Traceback …"}) is None
