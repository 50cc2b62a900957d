"""Which points the sweepers ask for."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from truerisk.cli import main
from truerisk.config.cell_composer import CellComposer
from truerisk.config.compose import ConfigLoader, expand_short_forms, hydra_session
from truerisk.core.errors import ConfigError
from truerisk.core.stop import Stop
from truerisk.outcome import Outcome
from truerisk.sweeps.study_folder import StudyFolder
from truerisk.sweeps.sweeper.axis import quote_distributions
from truerisk.sweeps.sweeper.grids import Grids, GridSweeper
from truerisk.sweeps.sweeper.random import Random
from truerisk.sweeps.sweeper.tuner import Tuner
from truerisk.sweeps.sweeper.zipped import Zipped


@pytest.fixture(scope="module")
def loader():
    with hydra_session():
        yield ConfigLoader()


@pytest.fixture
def study(loader, tmp_path):
    return StudyFolder(tmp_path / "s", CellComposer(loader))


@pytest.fixture
def asked(loader, study):
    """The batches of a sweeper for a command line."""

    def batches(sweeper, *line):
        overrides = quote_distributions(expand_short_forms(line))
        return sweeper.propose_batches(loader.read_overrides(overrides), study)

    return batches


@pytest.fixture
def points(asked):
    return lambda sweeper, *line: [" ".join(p) for batch in asked(sweeper, *line) for p in batch]


def test_a_grid_is_hydras(points, asked):
    assert points(GridSweeper(), "a=1,2", "b=x", "seed=range(2)") == [
        "a=1 b=x seed.base=0",
        "a=1 b=x seed.base=1",
        "a=2 b=x seed.base=0",
        "a=2 b=x seed.base=1",
    ]
    assert [len(batch) for batch in asked(GridSweeper(max_batch_size=3), "a=1,2", "b=3,4")] == [
        3,
        1,
    ]


def test_a_list_pairs_values(points):
    assert points(Zipped(crossed=["seed"]), "a=1,2", "c=0", "b=x,y", "seed=7,8") == [
        "a=1 c=0 b=x seed.base=7",
        "a=1 c=0 b=x seed.base=8",
        "a=2 c=0 b=y seed.base=7",
        "a=2 c=0 b=y seed.base=8",
    ]
    assert points(Zipped(), "a=1") == ["a=1"]
    with pytest.raises(ConfigError, match="lengths must agree: a has 2, b has 3"):
        points(Zipped(), "a=1,2", "b=1,2,3")


def test_every_sweeper_knows_globs_and_what_is_taken_away(points):
    line = ("optimizer=glob([s*],exclude=[*sam*,sg*,so*,sc*])", "~optimizer.eps", "study=")
    whole = ["optimizer=shampoo ~optimizer.eps=null study="]
    assert points(GridSweeper(), *line) == points(Zipped(), *line) == whole


def test_grids_follow_each_other(points):
    grids = [{"optimizer": "sgd", "optimizer.lr": "0.1,1"}]
    grids.append({"optimizer": "adam", "step.clip": None})
    assert points(Grids(grids), "seed=1,2") == [
        "optimizer=sgd optimizer.lr=0.1 seed.base=1",
        "optimizer=sgd optimizer.lr=0.1 seed.base=2",
        "optimizer=sgd optimizer.lr=1 seed.base=1",
        "optimizer=sgd optimizer.lr=1 seed.base=2",
        "optimizer=adam step.clip=null seed.base=1",
        "optimizer=adam step.clip=null seed.base=2",
    ]


def column(found, key):
    return np.array([float(dict(o.split("=") for o in p.split())[key]) for p in found])


LAWS = {
    "interval(2,3)": stats.uniform(2, 1),
    "tag(log,interval(1e-4,10))": stats.loguniform(1e-4, 10),
    "loguniform(1e-4,10)": stats.loguniform(1e-4, 10),
    "norm(5,2)": stats.norm(5, 2),
    "beta(2,3)": stats.beta(2, 3),
}


@pytest.mark.parametrize("law", LAWS)
def test_draws_follow_their_law(points, law):
    found = column(points(Random(count=600), f"a={law}"), "a")
    assert stats.kstest(found, LAWS[law].cdf).pvalue > 0.01
    other = column(points(Random(count=600, seed=1), f"a={law}"), "a")
    assert stats.kstest(other, LAWS[law].cdf).pvalue > 0.01 and not np.any(other == found)


def test_whole_numbers_reach_both_ends(points):
    for law in ("int(interval(1,4))", "int(tag(log,interval(1,4)))", "randint(1,5)"):
        found = points(Random(count=300), f"a={law}")
        assert set(found) == {"a=1", "a=2", "a=3", "a=4"}, law
    choices = points(Random(count=300), "a=x,y", "b=range(3)")
    assert len(set(choices)) == 6


def test_more_points_and_more_axes_change_none(points):
    few, many = (points(Random(count=n), "a=norm(0,1)") for n in (5, 9))
    assert many[:5] == few
    two = points(Random(count=5), "b=interval(0,1)", "a=norm(0,1)")
    assert [point.split()[1] for point in two] == few


def test_seeds_are_taken_with_every_point(points):
    found = points(Random(count=3), "a=interval(0,1)", "seed=1,2")
    assert [point.split()[1] for point in found] == ["seed.base=1", "seed.base=2"] * 3
    assert len({point.split()[0] for point in found}) == 3


@pytest.mark.parametrize(
    ("sweeper", "axis", "message"),
    [
        (GridSweeper(), "a=interval(0,1)", "hydra/sweeper=random"),
        (GridSweeper(), "a=loguniform(1,2)", "a=loguniform(1,2): values are needed"),
        (GridSweeper(), "seed=rnage(3)", "there is no rnage(…); did you mean 'range'?"),
        (Zipped(), "a=interval(0,1)", "hydra/sweeper=random"),
        (Random(), "a=lognrom(1)", "did you mean 'lognorm'?"),
        (Random(), "a=norm(0,1,2,3,4)", "scipy.stats.norm"),
        (Random(), "a=loguniform(1,1e-4)", "a=loguniform(1,1e-4): scipy.stats.loguniform: Domain"),
        (Random(crossed=["b"]), "a=interval(0,1)", "hydra.sweeper.crossed: b is no axis"),
        (Zipped(crossed=["optimzer"]), "optimizer=sgd,adam", "did you mean 'optimizer'?"),
        (Tuner(), "seed=1,2", "hydra/sweeper=optuna has nothing to tune"),
        (Tuner(storage="sqlite:////no/x.db"), "a=interval(0,1)", "hydra.sweeper.storage=sqlite"),
        (Tuner(storage="nonsense"), "a=interval(0,1)", "hydra.sweeper.storage=nonsense"),
        (Tuner(storage="mysql://u@h/x"), "a=interval(0,1)", "hydra.sweeper.storage=mysql"),
        (Tuner(storage="/no/x.log"), "a=interval(0,1)", "hydra.sweeper.storage=/no/x.log"),
        (Random(), "a=norm(x)", "numbers belong between the brackets"),
        (Random(), "a=interval(3,1)", "a=interval(3,1) is empty: write the smaller end first"),
        (Random(), "a=int(interval(9,3))", "a=int(interval(9,3)) is empty"),
        (
            Random(),
            "a=tag(log,interval(0,1))",
            "a=tag(log,interval(0,1)): what is tagged log",
        ),
        (Tuner(), "a=tag(log,interval(-1,1))", "a=tag(log,interval(-1,1)): what is tagged log"),
        (Tuner(), "a=interval(1,0.1)", "a=interval(1,0.1) is empty"),
        (Tuner(), "a=loguniform(1,0.1)", "a=loguniform(1,0.1): it takes two numbers above 0"),
        (Random(), "a=1", "hydra/sweeper=random has nothing to draw: give an axis"),
        (Random(), "seed=1,2", "hydra/sweeper=random has nothing to draw: give an axis"),
        (Tuner(), "a=norm(0,1)", "optuna searches interval(a,b)"),
    ],
)
def test_axes_that_make_no_sense(points, sweeper, axis, message):
    with pytest.raises(ConfigError) as error:
        points(sweeper, axis)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["grids"], "hydra.sweeper.grids is empty: give mappings of axes, as in [{"),
        (["grids", "hydra.sweeper.grids=[3]"], "hydra.sweeper.grids must be a list of mappings"),
        (["grids", "hydra.sweeper.grids=3"], "hydra.sweeper.grids must be a list of mappings"),
        (["random"], "hydra/sweeper=random has nothing to draw: give an axis"),
        (["random", "hydra.sweeper.seed=x"], "hydra.sweeper.seed must be a whole number"),
        (["optuna", "hydra.sweeper.startup=x"], "hydra.sweeper.startup must be a whole number"),
    ],
)
def test_a_sweeper_without_points_is_refused(sweep, here, capsys, options, message):
    sweeper, *numbers = options
    assert sweep(f"hydra/sweeper={sweeper}", *numbers) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not list(here.iterdir())


@pytest.mark.parametrize("sweeper", ["basic", "list"])
def test_a_sweep_without_an_axis_is_one_cell(sweep, capsys, sweeper):
    assert sweep(f"hydra/sweeper={sweeper}") == 0
    assert "1 run: 1 finished" in capsys.readouterr().out


# --- tuning -----------------------------------------------------------------------------------


def valley(point):
    """(log₁₀ lr + 2)² + (width − 5)²/10, least at lr = 0.01 and width = 5."""
    values = dict(o.split("=") for o in point)
    return (math.log10(float(values["lr"])) + 2) ** 2 + (int(values["width"]) - 5) ** 2 / 10


SPACE = ("lr=loguniform(1e-6,1e2)", "width=int(interval(1,9))")


def tune(batches, judge, most=10**6):
    """Answer a tuner's batches; what was asked for."""
    seen, batch = [], next(batches, None)
    while batch is not None and len(seen) < most:
        seen.append(batch)
        try:
            batch = batches.send([judge(point) for point in batch])
        except StopIteration:
            batch = None
    return seen


def finished(point):
    return Outcome(valley(point), "finished")


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_tuners_find_the_valley(asked, sampler):
    tuner = Tuner(trials=48, batch=8, sampler=sampler, startup=16)
    seen = tune(asked(tuner, *SPACE), finished)
    assert [len(batch) for batch in seen] == [8] * 6
    values = [valley(point) for batch in seen for point in batch]
    assert np.median(values[-16:]) < np.median(values[:16]) / 2 and min(values) < 0.5


def test_the_same_command_goes_on(asked):
    tuner = Tuner(trials=7, batch=3, sampler="random")
    first = tune(asked(tuner, *SPACE), finished, most=1)  # killed in its second batch
    assert len(first) == 1
    rest = tune(asked(tuner, *SPACE), finished)
    assert [len(batch) for batch in rest] == [3, 1] and not tune(asked(tuner, *SPACE), finished)
    assert len(tune(asked(Tuner(trials=9, sampler="random"), *SPACE), finished)) == 2
    other = tune(asked(tuner, *SPACE, "model=linear"), finished)
    assert sum(map(len, other)) == 7


def test_a_trial_that_was_cut_off_is_asked_for_again(asked):
    tuner = Tuner(trials=4, batch=2, sampler="random")
    cut = next(asked(tuner, *SPACE))
    seen = tune(asked(tuner, *SPACE), finished)
    assert seen[0] == cut and len(seen) == 2


def test_a_trial_in_other_hands_is_left_to_them(asked):
    tuner = Tuner(trials=4, batch=2, sampler="random")
    theirs = asked(tuner, *SPACE)
    held = next(theirs)
    mine = tune(asked(tuner, *SPACE), finished)
    assert sum(map(len, mine)) == 2 and not any(point in held for batch in mine for point in batch)
    with pytest.raises(StopIteration):
        theirs.send([finished(point) for point in held])


def test_a_trial_whose_cells_others_train_is_left_to_them(asked):
    tuner = Tuner(trials=4, batch=2, sampler="random")
    held = next(asked(tuner, *SPACE))  # its launch is gone, the jobs that it began are not

    def judge(point):
        return Outcome(math.nan, "elsewhere") if point in held else finished(point)

    mine = tune(asked(tuner, *SPACE), judge)
    assert mine[0] == held and sum(map(len, mine)) == 4


def trials(study):
    import optuna

    storage = f"sqlite:///{study.folder / 'optuna.db'}"
    summary, *_ = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def test_how_trials_end(asked, study):
    ends = iter(
        [
            Outcome(1.0, "finished"),
            Outcome(2.0, "finished"),
            Outcome(math.nan, "diverged", "step 3"),
            Outcome(1.0, "finished"),
            Outcome(3.0, "finished", stop=Stop("halving", 0, {"epoch": 9})),
            Outcome(5.0, "finished"),
            Outcome(math.nan, "failed"),
            Outcome(1.0, "finished"),
        ]
    )
    tune(asked(Tuner(trials=4), *SPACE, "seed=1,2"), lambda point: next(ends))
    found = trials(study)
    assert [t.state.name for t in found] == ["COMPLETE", "PRUNED", "PRUNED", "FAIL"]
    assert found[0].value == 1.5 and found[2].intermediate_values == {9: 4.0}


def test_trials_that_cannot_work_are_not_counted_and_end(asked, study):
    """A point in five works: three are found; where none does, the search ends."""

    def judge(point, share):
        works = float(dict(o.split("=") for o in point)["a"]) < share
        return Outcome(1.0, "finished") if works else Outcome(math.nan, "refused")

    tuner = Tuner(trials=3, batch=2, sampler="random", seed=3)
    tune(asked(tuner, "a=interval(0,1)"), lambda point: judge(point, 0.2))
    states = [t.state.name for t in trials(study)]
    assert states.count("COMPLETE") == 3 and len(states) > 6
    seen = tune(asked(tuner, "a=interval(0,1)", "b=1"), lambda point: judge(point, 0.0))
    assert sum(map(len, seen)) == 20
    assert not tune(asked(tuner, "a=interval(0,1)", "b=1"), lambda point: judge(point, 0.0))


def test_a_log_file_for_clusters(asked, tmp_path):
    tuner = Tuner(trials=2, storage=str(tmp_path / "trials.log"))
    assert len(tune(asked(tuner, *SPACE), finished)) == 2
    assert (tmp_path / "trials.log").exists() and not (tmp_path / "s" / "optuna.db").exists()


def test_settings(asked, sweep, capsys):
    assert sweep("hydra/sweeper=optuna", "hydra.sweeper.sampler=cmae") == 2
    assert "error: hydra.sweeper.sampler=cmae: did you mean" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="did you mean 'cmaes'"):
        Tuner(sampler="cmae")
    with pytest.raises(ConfigError, match=r"hydra.sweeper.trials"):
        Tuner(trials=0)


def test_tuning_from_the_command_line(sweep, cells, capsys):
    asked = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "hydra.sweeper.batch=2", "seed=1,2"]
    asked += ["optimizer.lr=tag(log,interval(1e-4,1))", "hydra.sweeper.sampler=random"]
    assert sweep(*asked) == 0
    assert "6 runs: 6 finished\n" in capsys.readouterr().out
    found = cells()
    assert len(found) == 6 and len({run.config.optimizer.lr for run in found.values()}) == 3
    assert sweep(*asked) == 0 and len(cells()) == 6
    assert main(["plan", *asked]) == 2 and "there is no plan" in capsys.readouterr().err


def test_trials_that_ask_for_the_same_cell_share_its_outcome(sweep, cells, here, capsys):
    asked = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "hydra.sweeper.batch=3"]
    assert sweep(*asked, "optimizer.lr=0.1,0.2") == 0
    assert "2 runs: 2 finished\n" in capsys.readouterr().out and len(cells()) == 2
    assert [t.state.name for t in trials(SimpleNamespace(folder=here / "outputs/s"))] == [
        "COMPLETE"
    ] * 3


def test_random_search_from_the_command_line(sweep, cells):
    assert (
        sweep("hydra/sweeper=random", "hydra.sweeper.count=2", "optimizer.lr=loguniform(1e-4,1)")
        == 0
    )
    assert len(cells()) == 2


@pytest.mark.parametrize("options", ["momentum,adam", "adam,momentum"])
def test_a_sweep_does_not_hang_on_which_option_comes_first(sweep, tiny, here, capsys, options):
    asked = [*tiny.overrides, f"optimizer={options}", "optimizer.momentum=0.8"]
    assert main(["plan", *asked]) == 0
    out = capsys.readouterr().out
    assert "optimizer=momentum  to run" in out and "2 cells" in out
    assert "optimizer=adam      cannot work  optimizer.momentum" in out
    # a key that no option has stops all of it, as before
    assert main(["plan", *tiny.overrides, "optimizer=adam,sgd", "optimizer.lrate=1"]) == 2
    assert "optimizer.lrate" in capsys.readouterr().err


def test_a_trial_that_cannot_work_is_one_of_many(sweep, capsys, here):
    """… where its option lacks a key, and the tuner goes on; a key that none has is a slip."""
    asked = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "optimizer=adam,momentum"]
    assert sweep(*asked, "optimizer.momentum=interval(0.5,0.9)") == 2
    study = SimpleNamespace(folder=here / "outputs" / "s")
    states = [trial.state.name for trial in trials(study)]
    # those that cannot work are none of the three
    assert states.count("COMPLETE") == 3 and set(states) == {"FAIL", "COMPLETE"}
    assert "'momentum' belongs to" in capsys.readouterr().err
    assert sweep(*asked, "optimizer.speed=interval(0.5,0.9)") == 2
    assert "none of the options that are swept has such a key" in capsys.readouterr().err
    assert len(trials(study)) == len(states)
    assert sweep(*asked[:1], "hydra.sweeper.trials=1", "optimizer.lr=interval(0.01,0.1)") == 0
    assert f"holds {len(states)} trials of another search space" in capsys.readouterr().err


def test_each_experiment_has_the_grid_of_its_own_file(here, tiny, capsys):
    folder = here / "mine" / "experiment"
    folder.mkdir(parents=True)
    grids = {"narrow": ("model.width", "5,10"), "rates": ("optimizer.lr", "0.1,0.01")}
    for name, (key, values) in grids.items():
        text = "# @package _global_\n# A grid\nhydra:\n  sweeper:\n    params:\n"
        text += f'      {key}: "{values}"\n'
        (folder / f"{name}.yaml").write_text(text)
    asked = ["--config-dir=mine", "data=iris", "experiment=narrow,rates", "seed=1,2"]
    assert main(["plan", "-m", *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = sorted(line.split()[0] for line in lines[:-1])
    wanted = [f"model.width={w},experiment=narrow" for w in (5, 10)]
    wanted += [f"optimizer.lr={lr},experiment=rates" for lr in (0.1, 0.01)]
    assert found == sorted(f"{cell},seed={seed}" for cell in wanted for seed in (1, 2))
    assert "outputs/experiment+seed,data=iris: 8 cells" in lines[-1]
    (folder / "tuned.yaml").write_text(
        "# @package _global_\n# Searched\ndefaults:\n  - override /hydra/sweeper: optuna\n"
    )
    assert main(["plan", "-m", "--config-dir=mine", "experiment=narrow,tuned"]) == 2
    assert "experiment=tuned is searched by Tuner" in capsys.readouterr().err


def test_a_range_of_nothing(sweep, capsys):
    assert sweep("seed=range(0)") == 2
    assert "seed=range(0): there is no value in it" in capsys.readouterr().err


def test_trials_on_an_edited_file_are_a_study_of_their_own(sweep, here, capsys):
    asked = ["hydra/sweeper=optuna", "hydra.sweeper.trials=2", "optimizer.lr=interval(0.01,0.1)"]
    asked += ["data=table", "data.source.path=t.csv", "data.source.target=y"]

    def write(shift):
        rows = [f"{i % 7},{(i + shift) % 2}" for i in range(60)]
        (here / "t.csv").write_text("\n".join(["x,y", *rows, ""]))

    write(0)
    assert sweep(*asked) == 0 and sweep(*asked) == 0
    assert "trials of another" not in capsys.readouterr().err
    assert len(list((here / "outputs" / "s").glob("*-*/"))) == 2
    write(1)
    assert sweep(*asked) == 0
    assert "holds 2 trials of another search space, recipe, file or class" in (
        capsys.readouterr().err
    )
    assert len(list((here / "outputs" / "s").glob("*-*/"))) == 4
    assert sweep(*asked) == 0
    assert len(list((here / "outputs" / "s").glob("*-*/"))) == 4
