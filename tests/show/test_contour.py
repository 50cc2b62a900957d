"""The figure of a test function shows the paths that were taken, and a sweep's in one figure."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import truerisk
from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.model import Function
from truerisk.show.contour import draw_paths, save_contour, save_contours
from truerisk.show.map import Box, place_names
from truerisk.show.panel import save_png
from truerisk.show.trajectory import (
    Trajectory,
    build_function,
    evaluate_function,
    find_runs,
    label_runs,
    read_trajectory,
)

SWEEP = ["data=none", "model=rosenbrock", "trainer.max_epochs=15"]
OPTIMIZERS = ["newton", "gd", "adam"]  # gradient descent diverges there


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """What ``truerisk train -m`` leaves, and what it prints."""
    import contextlib
    import io

    folder, told = tmp_path_factory.mktemp("sweep"), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(io.StringIO()):
        choices = f"optimizer={','.join(OPTIMIZERS)}"
        assert main(["train", "-m", *SWEEP, choices, f"hydra.sweep.dir={folder}"]) == 0
    return folder, told.getvalue()


@pytest.fixture(scope="module")
def drawn(sweep):
    """The sweep's figure, and the paths in it."""
    runs = find_runs([sweep[0]])
    function = build_function(runs[0])
    names = label_runs([run.config for run in runs])
    paths = [read_trajectory(run, function, name) for run, name in zip(runs, names, strict=True)]
    return draw_paths(function, paths, "rosenbrock"), paths


def texts(axes):
    return {text.get_text() for text in axes.texts}


def test_a_sweep_ends_with_one_figure(sweep):
    folder, told = sweep
    assert f"figure  {folder / 'rosenbrock.png'}" in told
    assert (folder / "rosenbrock.png").stat().st_size > 10_000
    assert "3 runs: " in told and "1 diverged" in told


def test_each_run_has_its_own(sweep):
    runs = find_runs([sweep[0]])
    assert len(runs) == 3 and all(run.figure.exists() for run in runs)


def test_the_map_shows_every_path(drawn):
    figure, paths = drawn
    panel, _ = figure.axes
    lines = [
        np.column_stack(line.get_data()) for line in panel.lines if line.get_linewidth() == 2.4
    ]
    for path in paths:
        count = min(len(path.points), 2)  # divergence leaves the map
        assert any(np.array_equal(line[:count], path.points[:count]) for line in lines), path.label
        assert path.points[0].tolist() == [-1.2, 1.0]
    assert {*OPTIMIZERS, "start"} <= texts(panel)
    newton = paths[0]
    assert len(newton.points) == 16 and newton.value[0] == pytest.approx(24.2)
    left, right, bottom, top = *panel.get_xlim(), *panel.get_ylim()
    for x, y in newton.points:
        assert left <= x <= right and bottom <= y <= top
    assert right - left == pytest.approx(top - bottom)


def test_values_are_those_of_the_function(drawn):
    figure, paths = drawn
    panel = figure.axes[1]
    assert panel.get_yscale() == "log"
    for path, line in zip(paths, panel.lines, strict=True):
        x, y = line.get_data()
        assert np.array_equal(y, path.value[x])
    assert panel.get_title(loc="left") == "value; gd diverges"
    assert texts(panel) == {"newton", "adam"}
    assert panel.get_ylim()[1] <= 242


def test_lines_differ_without_their_color(drawn):
    dashes = [str(line._unscaled_dash_pattern) for line in drawn[0].axes[1].lines]
    assert len(set(dashes)) == 3


def test_names_keep_clear_of_each_other_and_in_the_frame():
    draws = np.random.default_rng(0)
    lines = [np.cumsum(draws.normal(size=(30, 2)), 0) * 10 + 150 for _ in range(4)]
    names, frame = ["gd", "momentum", "newton", "lbfgs_backtracking"], Box(0, 0, 400, 400)
    boxes = place_names(names, lines, frame, 15.0, np.empty((0, 2)))
    for i, one in enumerate(boxes):
        assert one.overlap_area(frame) == pytest.approx(
            (one.right - one.left) * (one.top - one.bottom)
        )
        assert all(one.overlap_area(other) == 0 for other in boxes[:i])


def test_a_function_of_one_variable_has_a_graph(run, tmp_path):
    result = run("data=none", "model=cubic", "model.start=[0.5]", "optimizer=gd", "risk.every=100")
    path = save_contour([result.folder], tmp_path / "new" / "cubic.png")
    assert path.stat().st_size > 10_000
    function = build_function(result)
    figure = draw_paths(function, [read_trajectory(result, function, "gd")])
    assert figure.axes[0].get_xlabel() == "$w_0$" and "gd" in texts(figure.axes[0])


@pytest.mark.parametrize("dimension", [3, 12])
def test_more_dimensions_have_values_alone(dimension, run):
    given = ["data=none", "model=rosenbrock", f"model.dimension={dimension}", "optimizer=newton"]
    result = run(*given, "trainer.max_epochs=5")
    function = build_function(result)
    path = read_trajectory(result, function, "newton")
    assert path.points.shape == (6, 3 if dimension == 3 else 0)
    assert path.value[-1] == pytest.approx(
        result.history.query("name == 'risk/val'").value.iloc[-1]
    )
    (panel,) = draw_paths(function, [path]).axes
    assert re.match("value", panel.get_title(loc="left"))


def test_a_path_that_leaves_does_not_widen_the_map(run):
    from truerisk.show.map import map_window

    result = run("data=none", "model=booth", "optimizer=gd", "trainer.max_epochs=1")
    function = build_function(result)
    far = np.array([[-8.0, -4.0], [12.0, 0.0], [1e9, 0.0]])
    path = Trajectory("gd", np.arange(3), far, np.ones(3), "finished")
    (left, right), (bottom, top) = map_window(function, [path])
    assert -12 < left < -8 and 12 < right < 15 and right - left == pytest.approx(top - bottom)


def test_what_cannot_be_compared(sweep, run, tmp_path):
    folder, _ = sweep
    booth = run("data=none", "model=booth", "optimizer=gd", "trainer.max_epochs=1").folder
    iris = run("data=iris", "trainer.max_epochs=1").folder
    with pytest.raises(ConfigError, match=r"different functions \(booth, rosenbrock"):
        save_contour([folder, booth], tmp_path / "a.png")
    with pytest.raises(ConfigError, match="no run of a test function"):
        save_contour([iris], tmp_path / "a.png")
    with pytest.raises(ConfigError, match="9 paths cannot be told apart"):
        save_contour([folder] * 3, tmp_path / "a.png")
    assert save_contours(iris.parent / "nowhere") == []


def test_start_points_of_one_function_are_compared(tmp_path):
    for i, start in enumerate(["[0,0]", "[-1,-1]"]):
        given = ["data=none", "model=himmelblau", f"model.start={start}", "optimizer=gd"]
        given += ["optimizer.lr=0.01", "trainer.max_epochs=3", "risk.every=5"]
        truerisk.train(given, folder=tmp_path / str(i))
    (path,) = save_contours(tmp_path)
    assert path == tmp_path / "himmelblau.png"
    assert label_runs([run.config for run in find_runs([tmp_path])])[0].startswith("gd, start")


class Constant(Function):
    known, minimum = ((0.0, 0.0),), 3.0

    def value(self, w):
        return 0 * w.sum(-1) + 3


class Lost(Function):
    def value(self, w):
        return w.sum(-1) * math.nan


class Half(Function):
    """Finite on one side only, where it also grows beyond what axes can show."""

    minimum = 0.0

    def value(self, w):
        return w[..., 0].sqrt() * (w[..., 1] * 400).exp()


class Line(Function):
    size, region = 1, ((-2.0, 2.0),)

    def value(self, w):
        return w[..., 0].sqrt()


class Level(Line):
    known = ((0.0,),)

    def value(self, w):
        return 0 * w[..., 0]


class Nowhere(Line):
    def value(self, w):
        return w[..., 0] * math.nan


class Far(Function):
    """No value on the map is near the lowest."""

    minimum = 0.0

    def value(self, w):
        return 100 + w[..., 0].sin()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Constant, "$f$ is constant here; ■ end"),
        (Lost, "$f$ is not finite here; ■ end"),
        (Half, "lines of equal $f$, blank: not finite; ☆ minimum, ■ end"),
        (Far, "lines of equal $f$, in equal ratios; ☆ minimum, ■ end"),
        (Line, "$f(w)$; ☆ local minimum"),
        (Level, "$f(w)$; ☆ local minimum"),
        (Nowhere, "$f$ is not finite here"),
    ],
)  # fmt: skip
def test_flat_and_broken_functions_have_a_map(kind, told, tmp_path):
    function = kind([1.0, 0.5][: kind.size])
    points = np.array([[1.0, 0.5], [0.5, -0.5], [-0.5, -1.0]])[:, : kind.size]
    path = Trajectory("gd", np.arange(3), points, evaluate_function(function, points), "finished")
    figure = draw_paths(function, [path])
    assert figure.axes[0].get_title(loc="left") == told
    assert save_png(figure, tmp_path / "map.png").stat().st_size > 5000
    assert {"gd", "start"} <= texts(figure.axes[0]) or kind is Nowhere
