import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.reports import run_records
from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import (
    collect_runs,
    complete_command,
    read_config,
    read_curves,
    read_run_record,
    rebuild_command,
)
from truerisk.run import RunFolder
from truerisk.show.figure import read_curve

SUMMARY = {"risk/train": 0.1, "risk/val": 0.2, "risk/test": 0.3}


def test_runs_are_found_wherever_they_lie_and_once(synthetic, tmp_path):
    names = ("a/run10", "a/run9", "b/c/run", ".hidden/run")
    for i, name in enumerate(names):
        synthetic.write(tmp_path / name, synthetic.config(seed=i), SUMMARY)
    (tmp_path / "a" / "notes").mkdir()
    (tmp_path / "a" / "notes" / "config.yaml").write_text("not: a run")
    found = collect_runs([tmp_path, tmp_path / "b", tmp_path / "b" / "c" / "run"])
    folders = [run.folder.relative_to(tmp_path.resolve()).as_posix() for run in found.runs]
    assert folders == ["a/run9", "a/run10", "b/c/run"]
    assert found.runs[0].get_value("risk/test") == 0.3 and math.isnan(found.runs[0].get_value("x"))


def test_a_folder_without_runs_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"report: there is no run below .*config\.yaml"):
        collect_runs([tmp_path])
    (tmp_path / "study").mkdir()
    with pytest.raises(ConfigError, match="did you mean 'study'"):
        collect_runs([tmp_path / "studi"])


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.yaml", "a: [1"), ("summary.json", '{"risk/val": '), ("config.yaml", "a: 1")],
)
def test_a_run_that_cannot_be_read_is_told_and_the_others_count(synthetic, tmp_path, file, text):
    synthetic.write(tmp_path / "good", synthetic.config(), SUMMARY)
    (synthetic.write(tmp_path / "torn", synthetic.config(), SUMMARY) / file).write_text(text)
    found = collect_runs([tmp_path])
    assert len(found.runs) == 1 and len(found.unreadable) == 1
    assert str(tmp_path / "torn") in found.unreadable[0] and "\n" not in found.unreadable[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n  c: [1, 2]\n  d: |\n    x\n\n    y\ne:\n- 1\n- {f: 2}\n",
        "# of a user's own\na: 1\n\nb: 'two\n\n  lines'\n# at the end",
        "a: &first {b: 1}\nc: *first\n",
        "{a: 1, b: {c: 2}}",
        "--- \na: 1\n",
        'a: "x\nb: y"\n',
        "- a\n- b\n",
        "a\nb",
        "",
    ],
)
def test_a_config_is_read_group_by_group_as_yaml_reads_it_whole(text, tmp_path):
    run = RunFolder(tmp_path)
    run.config.write_text(text)
    whole = yaml.safe_load(text)
    if isinstance(whole, dict):
        assert read_config(run) == whole
    else:
        with pytest.raises(ConfigError, match=r"config\.yaml is damaged: it holds no config"):
            read_config(run)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """… as it is where the run is resumed or measured again."""
    run = RunFolder(tmp_path)
    run.config.write_text("seed: 1\nb: 2\nseed: 3\n")
    for read in (lambda: read_config(run), run.load_config):
        with pytest.raises(ConfigError, match=r"damaged: the key seed stands twice.* line 3"):
            read()


def test_a_group_that_runs_share_is_parsed_once(synthetic, tmp_path, monkeypatch):
    """A fault is placed in the whole file all the same."""
    for seed in range(20):
        synthetic.write(tmp_path / str(seed), synthetic.config(seed=seed), SUMMARY)
    texts, load = [], yaml.load
    monkeypatch.setattr(yaml, "load", lambda text, loader: texts.append(text) or load(text, loader))
    run_records._parse_group.cache_clear()
    found = collect_runs([tmp_path])
    assert sorted(run.config["seed"]["base"] for run in found.runs) == list(range(20))
    assert len(texts) == 20 + 4  # choices, data, optimizer and regularizer are the same in all
    torn = RunFolder(tmp_path / "0")
    torn.config.write_text("a: 1\nb: 2\nc: [3\n")
    with pytest.raises(ConfigError, match="line 4"):
        read_config(torn)


LOST = [
    ("summary.json", "{"),
    ("metrics.csv", "junk\n"),
    ("metrics.csv", "step,epoch,name,value\n3\n"),
]
LOST += [("status.json", ""), ("config.yaml", ""), ("status.json", "{"), ("metadata.json", "[")]


@pytest.mark.parametrize(("file", "text"), LOST)
def test_a_table_of_runs_names_and_counts_the_unreadable(synthetic, tmp_path, capsys, file, text):
    """… also one whose file is gone (an empty text), and the exit code is no success."""
    synthetic.write(tmp_path / "s" / "good", synthetic.config(), SUMMARY)
    bad = synthetic.write(tmp_path / "s" / "bad", synthetic.config(seed=1), SUMMARY) / file
    bad.unlink() if not text else bad.write_text(text)
    assert main(["report", str(tmp_path / "s")]) == 2
    out, err = capsys.readouterr()
    assert "1 run of 1 recipe: 1 finished, and 1 unreadable beside them" in out
    assert str(bad.parent) in err and file in err and "\n" not in err.strip()
    assert "delete its folder" in err


def test_of_many_unreadable_runs_a_few_are_named_and_all_counted(synthetic, tmp_path, capsys):
    synthetic.write(tmp_path / "s" / "good", synthetic.config(), SUMMARY)
    for seed in range(1, 13):
        bad = synthetic.write(tmp_path / "s" / f"bad{seed}", synthetic.config(seed=seed), SUMMARY)
        (bad / "summary.json").write_text("{")
    assert main(["report", str(tmp_path / "s")]) == 2
    out, err = capsys.readouterr()
    *named, rest = err.splitlines()
    assert len(named) == 5 and all(f"bad{i}/" in line for i, line in enumerate(named, 1))
    assert rest == "error: and 7 more runs that are not readable"
    assert "1 finished, and 12 unreadable beside them" in out
    page = (tmp_path / "s" / "report" / "index.html").read_text()
    assert "bad5/" in page and "bad6/" not in page and rest.removeprefix("error: ") in page


def test_a_run_still_going_has_a_curve_and_no_summary(synthetic, tmp_path):
    folder = synthetic.write(tmp_path / "run", synthetic.config(), SUMMARY, status="running")
    (folder / "summary.json").unlink()
    with (folder / "metrics.csv").open("a") as file:
        file.write("40,4,risk/val,0.1")  # a row being written
    run = collect_runs([tmp_path]).runs[0]
    assert run.status == "running" and not run.summary
    assert run.curves["risk/val"].epoch.tolist() == [0, 1, 2, 3]


def test_a_validation_risk_that_is_no_number_is_divergence(synthetic, tmp_path):
    synthetic.write(tmp_path / "run", synthetic.config(), {**SUMMARY, "risk/val": math.inf})
    assert collect_runs([tmp_path]).runs[0].status == "diverged"


def test_curves_of_a_real_run_are_those_of_its_figure(run):
    result = run("data=iris", "model.width=8", "trainer.max_epochs=3", "regularizer=[l2]")
    found = read_curves(result.run.metrics)
    for name in ("risk/train", "risk/val", "error/val"):
        expected = read_curve(result.history, name)
        assert np.array_equal(found[name].epoch, expected.epoch)
        assert np.array_equal(found[name].value, expected.value)
    assert found["risk/val"].step.tolist() == [0, 1, 2, 3]


def test_what_is_measured_once_more_at_the_end_is_not_of_the_curve(tmp_path):
    rows = ["0,0,risk/val,2.0", "5,1,risk/val,1.0", "5,1,risk/test,3.0", "5,1,risk/val,9.0"]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,epoch,name,value", *rows, ""]))
    found = read_curves(tmp_path / "metrics.csv")
    assert list(found) == ["risk/val"] and found["risk/val"].value.tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    "cell",
    [
        ["optimizer=momentum", "optimizer.lr=0.05", "seed=3", "data=iris"],
        ["regularizer=[l2,dropout]", "regularizer.l2.coefficient=0.001", "model.bias=false"],
        ["model=cnn1d", "trainer.max_epochs=7", "optimizer.betas=[0.8,0.9]", "step.clip.norm=null"],
    ],
)
def test_the_command_of_a_cell_composes_to_its_config(cell):
    """Every override of a sweep is replaced by the cell's own value, whatever stood there."""
    import shlex

    config = compose(cell)
    swept = [f"{key}=choice({value},{value})" for key, _, value in (o.partition("=") for o in cell)]
    command = rebuild_command(["/bin/truerisk", "train", "-m", *swept, "study=x"], config)
    again = shlex.split(command)
    assert again[:2] == ["truerisk", "train"] and not any("choice" in word for word in again)
    assert compose(again[2:]) == config


def test_axes_from_a_file_are_added_to_the_command():
    config = compose(["optimizer=sgd", "optimizer.lr=0.05", "regularizer=[l2]", "seed=3"])
    keys = ["choices.optimizer", "choices.regularizer", "optimizer.lr"]
    command = complete_command("truerisk train optimizer=sgd", keys, config)
    assert command == ("truerisk train optimizer=sgd 'regularizer=[l2]' optimizer.lr=0.05 seed=3")
    assert (
        complete_command("truerisk train seed.base=3", [], config) == "truerisk train seed.base=3"
    )


@pytest.mark.parametrize("path", ["it's.csv", "a, b.csv"])
def test_a_value_that_must_be_quoted_can_be_read_again(path):
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    command = complete_command("truerisk train seed=1", ["data.path"], {"data": {"path": path}})
    override = OverridesParser.create().parse_override(shlex.split(command)[-1])
    assert override.value() == path


def test_risks_with_label_smoothing_in_them_are_a_problem_of_their_own(synthetic, tmp_path):
    """Earlier versions measured so; since then runs say what they are measured without."""
    for i, smoothing in enumerate((0.0, 0.1, 0.2, 0.2)):
        loss = {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": smoothing}
        folder = synthetic.write(tmp_path / str(i), synthetic.config(loss=loss), SUMMARY)
        facts = json.loads((folder / "metadata.json").read_text())
        if i in (1, 2):
            facts["measured_without"] = ["label_smoothing"]
        (folder / "metadata.json").write_text(json.dumps(facts))
    study = build_study(collect_runs([tmp_path]))
    sizes = sorted(len(problem.recipes) for problem in study.problems)
    assert sizes == [1, 3]


def test_trained_parameters_are_read_and_unknown_of_earlier_runs(synthetic, tmp_path):
    folder = synthetic.write(tmp_path / "run", synthetic.config(), SUMMARY)
    assert read_run_record(folder).parameters is None
    facts = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps({**facts, "parameters": 35}))
    assert read_run_record(folder).parameters == 35
    kept = Path(__file__).parents[1] / "earlier_runs" / "finished"
    assert read_run_record(kept).parameters is None
