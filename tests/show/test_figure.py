import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from scipy import stats

from truerisk.risk.measured import Measured
from truerisk.show import risk_figure
from truerisk.show.figure import draw_run
from truerisk.show.panel import spread_apart

TRAIN = [2.3, 1.4, 0.9, 0.6, 0.5, 0.4]
VAL = [2.4, 1.6, 1.2, 1.1, 1.15, 1.3]


def history(train=TRAIN, val=VAL, extra=()):
    rows = []
    for epoch, (t, v) in enumerate(zip(train, val, strict=True)):
        values = {"risk/train": t, "risk/train/stderr": 0.02, "risk/val": v,
                  "risk/val/stderr": 0.05, "lr/0": 0.1 / (1 + epoch), "objective": 9.0}  # fmt: skip
        rows += [(40 * epoch, epoch, name, value) for name, value in values.items()]
    frame = pd.DataFrame([*rows, *extra], columns=["step", "epoch", "name", "value"])
    return frame.astype({"epoch": "Int64"})


TEST = [(200, 5, "risk/test", 1.2), (200, 5, "risk/test/stderr", 0.07)]
AGAIN = [(200, 3, "risk/train", 0.61), (200, 3, "risk/val", 1.1)]


def lines(axes, size=None):
    return [
        line.get_xydata() for line in axes.lines if size is None or len(line.get_xdata()) == size
    ]


def test_lines_bands_best_epoch_and_test_risk():
    sizes = {"risk/val": 30, "risk/test": 20}
    figure = draw_run(history(extra=[*TEST, *AGAIN]), "a run", sizes)
    top, bottom = figure.axes
    train, val = lines(top)[:2]
    np.testing.assert_array_equal(train, np.stack([np.arange(6), TRAIN], 1))
    np.testing.assert_array_equal(val, np.stack([np.arange(6), VAL], 1))
    (rate,) = lines(bottom)
    np.testing.assert_allclose(rate, np.stack([np.arange(6), 0.1 / np.arange(1, 7)], 1))
    t = stats.t.ppf(0.975, 29)
    low = [path.get_extents() for band in top.collections[:2] for path in band.get_paths()]
    assert [(box.y0, box.y1) for box in low] == [
        pytest.approx((0.4 - t * 0.02, 2.3 + t * 0.02)),
        pytest.approx((1.1 - t * 0.05, 2.4 + t * 0.05)),
    ]
    marked = {line.get_marker(): line.get_xydata().tolist() for line in top.lines[2:]}
    assert marked["o"] == [[3, 1.1]] and marked["D"] == [[3, 1.2]]
    (bar,) = top.collections[2].get_segments()
    reach = stats.t.ppf(0.975, 19) * 0.07
    np.testing.assert_allclose(bar, [[3, 1.2 - reach], [3, 1.2 + reach]])
    texts = [text.get_text() for text in top.texts]
    note = "best: epoch 3\n(optimistic)\n◆ test 1.20\n[1.05, 1.35]"
    assert texts == [note, "train", "validation"]
    assert "risk, with 95 % intervals" in [text.get_text() for text in figure.findobj(Text)]
    assert top.get_yscale() == "linear" and figure.get_suptitle() == "a run"


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_the_epoch_that_was_kept_is_marked_though_another_has_the_lowest_risk(
    kept, tmp_path, monkeypatch
):
    """As in a run that follows a metric."""
    drawn = []
    monkeypatch.setattr("truerisk.show.figure.save_png", lambda figure, path: drawn.append(figure))
    summary = {"risk/val": Measured(VAL[kept], 0.05, kept, 30)}
    risk_figure(history(extra=TEST), tmp_path / "risk.png", summary=summary)
    top = drawn[0].axes[0]
    marked = {line.get_marker(): line.get_xydata().tolist() for line in top.lines[2:]}
    assert marked["o"] == [[kept, VAL[kept]]] and marked["D"] == [[kept, 1.2]]
    first, second, *_ = top.texts[0].get_text().splitlines()
    assert first == f"best: epoch {kept}"
    assert (second == "(optimistic)") == bool(kept)


def test_labels_stand_at_the_ends_of_their_lines():
    top = draw_run(history()).axes[0]
    for text, value in zip(top.texts[-2:], [TRAIN[-1], VAL[-1]], strict=True):
        share = (value - top.get_ylim()[0]) / np.ptp(top.get_ylim())
        assert text.xy == (1, pytest.approx(share, abs=0.02))
        assert (
            text.get_color()
            == [line for line in top.lines if len(line.get_xdata()) == 6][
                ["train", "validation"].index(text.get_text())
            ].get_color()
        )


def test_styles_differ_without_colour():
    train, val = draw_run(history()).axes[0].lines[:2]
    assert train.get_linestyle() != val.get_linestyle()


def test_more_than_a_decade_is_drawn_on_a_log_scale():
    top = draw_run(history(train=[2.3, 1.0, 0.5, 0.2, 0.1, 0.02])).axes[0]
    assert top.get_yscale() == "log" and top.get_ylim()[0] > 0


def test_names_closer_than_a_line_are_moved_apart():
    moved = spread_apart([0.5, 0.51, 0.1], 0.06)
    assert moved[1] - moved[0] == pytest.approx(0.06) and moved[2] == 0.1


def test_long_numbers_and_names_are_inside():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rates = [(40 * i, i, f"lr/{name}", 0.0003162) for name in ("0", "no_decay") for i in range(6)]
    rates += [(40, 1, "lr/no_decay", 0.0001)]
    figure = draw_run(history(extra=rates).query("name != 'lr/0' or value < 0.001"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width = figure.bbox.width
    labels = figure.texts
    names = [text for axes in figure.axes for text in axes.texts]
    assert {"0.0003162"} <= {label.get_text() for label in labels}
    assert {"group no_decay", "validation"} <= {name.get_text() for name in names}
    assert all(label.get_window_extent().x0 >= 0 for label in labels)
    assert all(name.get_window_extent().x1 <= width for name in names)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (history(train=[2.3], val=[2.4]), "best: epoch 0"),
        (history(train=[2.3] * 3, val=[math.nan] * 3), "not finite\nat epoch 0"),
        (history(train=[2.3, 1, math.inf], val=[2.3, 2, math.nan]), "not finite\nat epoch 2"),
        (history(train=[2.0, 1e10, 1e200], val=[2.0, 1e12, 1e250]), "best: epoch 0"),
        (history(train=[], val=[]), "no risk was measured"),
        (history(train=[0.0] * 2, val=[0.0] * 2), "best: epoch 0"),
        (history(train=[-1.0, -2.0], val=[-1.0, 20.0]), "best: epoch 0"),
        (history(train=[], val=[], extra=TEST), "◆ test 1.20\n[1.06, 1.34]"),
    ],
)  # fmt: skip
def test_short_broken_and_divergent_runs_are_drawn(tmp_path, frame, text):
    figure = draw_run(frame)
    assert text in [t.get_text() for t in figure.axes[0].texts]
    assert risk_figure(frame, tmp_path / "figures" / "risk.png").stat().st_size > 5000


def test_file_is_whole_white_and_not_blank(tmp_path):
    path = risk_figure(history(extra=TEST), tmp_path / "figures" / "risk.png", "a run")
    assert [p.name for p in path.parent.iterdir()] == ["risk.png"]
    image = imread(path)[..., :3]
    assert image.shape == (960, 1050, 3) and (image[[0, -1], [0, -1]] == 1).all()
    inked = (image < 0.9).any(-1)
    assert 0.02 < inked.mean() < 0.2
    assert all(part.mean() > 0.005 for part in np.array_split(inked, 4, axis=0))
    # blue and orange ink alike: both curves are there
    assert ((image[..., 2] - image[..., 0]) > 0.4).sum() > 500
    assert ((image[..., 0] - image[..., 2]) > 0.4).sum() > 500


def test_the_note_of_the_best_epoch_stands_inside_the_panel():
    """Wherever the best epoch is, and with long numbers."""
    for at in range(1, 11):
        val = [1234.5 + abs(e - at) for e in range(12)]
        test = [(99, at, "risk/test", 1250.25), (99, at, "risk/test/stderr", 35.5)]
        figure = draw_run(history(train=val, val=val, extra=test))
        figure.draw_without_rendering()
        box, panel = figure.axes[0].texts[0].get_window_extent(), figure.axes[0].get_window_extent()
        assert panel.x0 <= box.x0 and box.x1 <= panel.x1, at


@pytest.mark.parametrize("level", [1.9, 2.35])
def test_the_line_of_the_best_constant_does_not_strike_out_the_note(level):
    figure = draw_run(history(extra=[*TEST, (200, 5, "constant/risk/val", level)]))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    note = next(text for text in axes.texts if text.get_text().startswith("best: epoch"))
    across = axes.transData.transform((0, level))[1]
    box = note.get_window_extent()
    assert not box.y0 <= across <= box.y1
