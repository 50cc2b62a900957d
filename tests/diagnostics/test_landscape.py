"""Slices through J, and the path on its plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.diagnostics import Landscape
from truerisk.diagnostics.landscape import thin_rows
from truerisk.objective import filter_normalized_directions, principal_directions
from truerisk.show.panel import new_figure


@pytest.fixture(scope="module")
def slices(watched):
    return watched.kept["landscape"]


def test_the_path_ends_at_the_last_weights(watched):
    path = watched.kept["landscape_path"]
    assert path["step"].tolist() == [0, 3, 6, 9, 12]
    torch.testing.assert_close(torch.from_numpy(path["weights"][-1]), watched.point.w)


def test_random_slices(watched, slices):
    point = watched.point
    d = filter_normalized_directions(point.space, point.w)
    for i, j in ((0, 0), (1, 3), (4, 2)):
        x, y = slices["random_at"][j], slices["random_at"][i]
        expected = float(point.move_to(point.w + x * d[:, 0] + y * d[:, 1]).value())
        assert slices["random"][i, j] == pytest.approx(expected, rel=1e-9)
    middle = len(slices["lines_at"]) // 2
    value = float(point.value())
    assert slices["lines"][:, middle].tolist() == pytest.approx([value, value], rel=1e-9)
    assert slices["lines"][1][::2].tolist() == pytest.approx(slices["random"][:, 2].tolist())


def test_the_plane_of_the_path(watched, slices):
    point = watched.point
    path = torch.from_numpy(watched.kept["landscape_path"]["weights"])
    found = principal_directions(path)
    np.testing.assert_allclose(slices["at"], found.at, rtol=1e-9, atol=1e-12)
    for i, j in ((0, 0), (3, 1)):
        step = slices["x"][j] * found.axes[:, 0] + slices["y"][i] * found.axes[:, 1]
        expected = float(point.move_to(point.w + step).value())
        assert slices["values"][i, j] == pytest.approx(expected, rel=1e-9)
    low, high = slices["at"].min(0), slices["at"].max(0)
    assert slices["x"][0] < low[0] < high[0] < slices["x"][-1]
    assert slices["y"][0] < low[1] < high[1] < slices["y"][-1]


def test_explained_variance(watched):
    path = watched.kept["landscape_path"]["weights"]
    variances = np.linalg.svd(path - path.mean(0), compute_uv=False) ** 2
    last = watched.tables["landscape"].iloc[-1]
    assert last["share/1"] == pytest.approx(variances[0] / variances.sum(), rel=1e-9)
    assert last["share/2"] == pytest.approx(variances[1] / variances.sum(), rel=1e-9)
    assert 0.8 < last["share/1"] + last["share/2"] <= 1


def test_a_function_of_two_variables_is_its_own_plane(on_function):
    look = ["diagnostics=[landscape]", "diagnostics.landscape.points=5", "optimizer=gd"]
    found = on_function("model=booth", *look, "optimizer.lr=0.02", "trainer.max_epochs=6")
    shares = found.tables["landscape"].iloc[-1]
    assert shares.sum() == pytest.approx(1)
    assert found.kept["landscape"]["at"].shape == (7, 2)


def test_a_single_weight_has_no_plane(on_function):
    with pytest.raises(ConfigError, match=r"diagnostics\.landscape: there is no plane"):
        on_function("model=cubic", "diagnostics=[landscape]", "optimizer=gd")


def test_long_paths_are_thinned_evenly_and_as_if_never_cut_off():
    rows = {"step": np.arange(0, 1000, 10), "weights": np.arange(100.0)[:, None]}
    kept = thin_rows(rows, 10, 8)
    assert kept["step"].tolist() == list(range(0, 1000, 160))
    one_by_one = {name: values[:0] for name, values in rows.items()}
    for i in range(100):
        grown = {n: np.concatenate([one_by_one[n], v[i : i + 1]]) for n, v in rows.items()}
        one_by_one = thin_rows(grown, 10, 8)
    assert one_by_one["step"].tolist() == kept["step"].tolist()


def test_no_height_is_written_across_the_edge_of_a_panel():
    at = np.linspace(0, 1, 41)
    bowl = at[:, None] ** 2 + at**2
    plane = {"x": at, "y": at, "values": np.tile(at, (41, 1)), "at": np.full((2, 2), 0.5)}
    landscape = Landscape()
    landscape.slices = {**plane, "share": np.array([0.9, 0.1]), "random_at": at, "random": bowl}
    landscape.slices |= {"lines_at": at, "lines": bowl[:2]}
    figure = new_figure(layout="constrained")
    landscape.plot(figure, None)
    figure.draw_without_rendering()
    for axes in figure.axes[1:]:
        panel, boxes = axes.bbox, [text.get_window_extent() for text in axes.texts]
        assert len(boxes) >= 3
        assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 for box in boxes)
        assert all(panel.y0 <= box.y0 and box.y1 <= panel.y1 for box in boxes)


def test_bad_numbers_are_refused():
    for options in ({"reach": 0}, {"points": 2}, {"most": 1}):
        with pytest.raises(ConfigError, match=r"diagnostics\.landscape\."):
            Landscape(**options)
