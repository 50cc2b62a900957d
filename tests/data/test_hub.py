from __future__ import annotations

import io
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, LoaderSplit, TensorSplit, hub
from truerisk.data.samples import Expected

datasets = pytest.importorskip("datasets")
Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, size=(30, 6, 5, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(pixels):
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, "PNG")
    return {"bytes": kept.getvalue(), "path": None}


@pytest.fixture
def pictures(tmp_path):
    def write(pixels=PIXELS, name="train.parquet", labels=None):
        n = len(pixels)
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "owl"])}
        )
        labels = [k % 3 for k in range(n)] if labels is None else labels
        rows = {"image": [png(p) for p in pixels], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def columns(tmp_path):
    def write(name="table.parquet", **named):
        path = str(tmp_path / name)
        datasets.Dataset.from_dict(named).to_parquet(path)
        return path

    return write


def ready(path, module=None, **options):
    module = DataModule(partial(hub, path, **options), **{"standardize": "none", **(module or {})})
    module.prepare()
    return module


def test_images_are_float_in_the_unit_interval(pictures):
    samples = hub(pictures())
    assert samples.x.shape == (3, 6, 5) and samples.class_names == ["cat", "dog", "owl"]
    for k in (0, 7):
        expected = torch.as_tensor(PIXELS[k]).permute(2, 0, 1) / 255
        assert samples.x[k].dtype == torch.float32 and torch.equal(samples.x[k], expected)
    assert hub(pictures(), mode="L").x.shape == (1, 6, 5)
    assert hub(pictures(), resize=4).x.shape == (3, 4, 4)
    assert hub(pictures(), resize=[4, 7]).x.shape == (3, 4, 7)
    assert hub(pictures(PIXELS[..., 0])).x.shape == (1, 6, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_read_as_needed_equal_those_held_in_memory(pictures, workers):
    path = pictures()
    held = ready(path, {"standardize": "channel"})
    lazy = ready(path, {"standardize": "channel", "in_memory": False, "workers": workers})
    assert isinstance(held.train, TensorSplit) and isinstance(lazy.train, LoaderSplit)
    assert held.info == lazy.info
    torch.testing.assert_close(held.standardizer.mean, lazy.standardizer.mean)
    torch.testing.assert_close(held.standardizer.scale, lazy.standardizer.scale)
    plan = [torch.tensor([3, 1]), torch.tensor([0, 2, 17])]
    state = torch.get_rng_state()
    mine, theirs = (m.train.to("cpu", torch.float64) for m in (lazy, held))
    for _ in range(2):
        for a, b in zip(mine.batches(plan), theirs.batches(plan), strict=True):
            torch.testing.assert_close(a.x, b.x, rtol=1e-5, atol=1e-6)
            assert a.x.dtype == torch.float64 and torch.equal(a.y, b.y)
    assert torch.equal(torch.get_rng_state(), state)
    next(mine.batches(plan[::-1]))
    assert len(next(mine.batches(plan))) == 2


def test_tensors_can_be_read_through_a_loader_too():
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    from truerisk.data import Samples

    held, lazy = (
        DataModule(Samples(x, y, "classification"), in_memory=m, label_noise=0.5)
        for m in (True, False)
    )
    held.prepare()
    lazy.prepare()
    index = torch.arange(4)
    (a,), (b,) = held.train.batches([index]), lazy.train.batches([index])
    assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


def test_columns_of_numbers(columns):
    a, b = np.arange(20.0), np.arange(20) % 7
    path = columns(a=a, text=["t"] * 20, b=b, label=["no", "yes"] * 10)
    samples = hub(path)
    np.testing.assert_array_equal(samples.x.numpy(), np.stack([a, b], 1))
    assert samples.task == "classification" and samples.class_names == ["no", "yes"]
    assert hub(path, x="b").x.shape == (20, 1)
    assert hub(path, x="b", y="a").task == "regression"
    assert hub(path, y="b").num_outputs == 7
    assert ready(path).info.input_shape == (2,)


@pytest.mark.parametrize("labels", [[["x", "y"], ["y", "z"]], [[2, 3], [3, 9]]])
def test_lists_of_labels_are_several_labels_a_sample(columns, labels):
    path = columns(a=[1.0, 2.0] * 5, label=labels * 5)
    samples = hub(path, suited=["classification", "multilabel"])
    assert samples.task == "multilabel"
    assert samples.class_names == [str(k) for k in sorted({k for pair in labels for k in pair})]
    assert samples.y[:2].tolist() == [[1, 1, 0], [0, 1, 1]]
    quantities = hub(columns(a=[1.0, 2.0], label=[[2, 3], [3, 9]]), suited=["regression"])
    assert quantities.task == "regression" and quantities.y.tolist() == [[2, 3], [3, 9]]


GRADES = datasets.ClassLabel(names=["low", "middle", "high"])


@pytest.fixture
def graded(tmp_path):
    """A data set whose labels, or lists of them, are numbers that the data set has names for."""

    def write(feature, labels):
        features = datasets.Features({"a": datasets.Value("float64"), "label": feature})
        rows = {"a": np.arange(float(len(labels))), "label": labels}
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "graded.parquet")
        return str(tmp_path / "graded.parquet")

    return write


def test_numbers_in_lists_have_the_data_sets_names(graded):
    path = graded(datasets.Sequence(GRADES), [[2, 0], [2], [], [0]])
    samples = hub(path)
    # of the middle one there is none, and it has its column
    assert samples.task == "multilabel" and samples.class_names == ["low", "middle", "high"]
    assert samples.y.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    turned = hub(path, classes=["high", "low", "middle"])
    assert turned.y.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_named_classes_take_the_order_that_is_asked_for(graded):
    path = graded(GRADES, [2, 0, 1, -1])
    assert hub(path, unlabelled="drop").y.tolist() == [2, 0, 1]
    order = ["high", "middle", "low"]
    samples = hub(path, unlabelled="drop", classes=order)
    assert samples.class_names == order and samples.y.tolist() == [0, 2, 1]
    with pytest.raises(ConfigError, match="class 'low' is not among"):
        hub(path, unlabelled="drop", classes=["high", "middle"])


def test_columns_of_a_class_each_give_it_their_name(columns):
    path = columns(a=[1.0, 2.0, 3.0] * 4, no=[1, 0, 0] * 4, so=[0, 1, 0] * 4, yes=[0, 0, 1] * 4)
    samples = hub(path, y=["no", "so", "yes"], suited=["classification"])
    assert samples.class_names == ["no", "so", "yes"] and samples.y[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("expected", "y", "stood_in"),
    [
        (Expected("classification", 2, ["no", "yes"]), "label", [0, 0]),
        (Expected("regression", 2), ["p", "q"], [[0, 0], [0, 0]]),
        (Expected("multilabel", 2, ["x", "y"]), "label", [[0, 0], [0, 0]]),
    ],
)
def test_samples_that_are_to_be_predicted_may_lack_targets(columns, expected, y, stood_in):
    path = columns(a=[1.0, 2.0], b=[0, 3])
    with pytest.raises(ConfigError, match="has no column"):
        hub(path, y=y, expected=expected)
    expected.may_lack_targets = True
    samples = hub(path, y=y, expected=expected)
    assert expected.lacks_targets and samples.task == expected.task
    assert samples.y.tolist() == stood_in and samples.x.tolist() == [[1, 0], [2, 3]]


def test_several_columns_are_several_targets(columns):
    path = columns(a=[1.0, 2.0] * 5, p=[0, 1] * 5, q=[1, 1] * 5, r=[3, 4] * 5)
    labels = hub(path, y=["p", "q"], x="a")
    assert (labels.task, labels.y[:2].tolist()) == ("multilabel", [[0, 1], [1, 1]])
    counts = hub(path, y=["p", "r"])
    assert (counts.task, counts.y[:2].tolist()) == ("regression", [[0, 3], [1, 4]])
    np.testing.assert_array_equal(counts.x[:2].numpy(), [[1, 1], [2, 1]])
    with pytest.raises(ConfigError, match=r"data\.source\.x names 'r', which is data\.source\.y"):
        hub(path, x=["a", "r"], y="r")


def test_columns_of_lists(columns):
    rows = np.random.default_rng(1).normal(size=(10, 4))
    samples = hub(columns(signal=rows.tolist(), label=[0, 1] * 5), x="signal")
    np.testing.assert_array_equal(samples.x.numpy(), rows)


def test_folders_with_a_test_split(pictures, tmp_path):
    pictures()
    pictures(PIXELS[:6], "test.parquet")
    module = ready(str(tmp_path))
    assert len(module.test) == 6 and len(module.train) + len(module.val) == 30
    assert torch.equal(module.test.y, torch.arange(6) % 3)
    assert hub(str(tmp_path), test_split=None).test is None
    assert len(hub(str(tmp_path), split="test", test_split="train").test[1]) == 30


def test_data_sets_saved_to_disk(tmp_path):
    rows = datasets.Dataset.from_dict({"a": [1.0, 2.0, 3.0], "label": [0, 1, 0]})
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "two"))
    assert hub(str(tmp_path / "one")).test is None
    assert torch.equal(hub(str(tmp_path / "two")).test[1], torch.tensor([0, 1, 0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, "did you mean 'train'"),
        ({"test_split": "tests"}, "data.source.test_split: the data set has no split 'tests'"),
        ({"y": "lable"}, "data.source.y: the data set has no column 'lable'; did you mean 'label'"),
        ({"x": "c"}, "data.source.x: the data set has no column 'c'"),
        ({"x": "text"}, "column 'text' does not hold numbers"),
        ({"x": "ragged"}, "column 'ragged' does not hold numbers, or lists of one length"),
        ({"x": "gaps"}, "missing or infinite numbers"),
        ({"y": "gaps", "x": "a"}, "1 of 2 samples have no label (null, NaN or an empty text)"),
        ({"task": "regression", "x": "a"}, "the target is not a number"),
        ({"task": "ranking", "x": "a"}, "data.source.task is 'ranking'"),
        (
            {"y": "ragged", "x": "a", "task": "classification"},
            "holds lists, and class labels are one number",
        ),
    ],
)
def test_mistakes_are_named(columns, options, message):
    path = columns(
        a=[1.0, 2.0],
        text=["t", "u"],
        ragged=[[1], [1, 2]],
        gaps=[1.0, float("nan")],
        label=["no", "yes"],
    )
    with pytest.raises(ConfigError) as error:
        hub(path, **options)
    assert message in str(error.value)


def test_bad_paths_are_named(tmp_path, columns):
    columns(a=[1.0], label=[0])
    (tmp_path / "bad.parquet").write_text("nothing of the kind")
    (tmp_path / "a.xls").write_text("1")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (None, "data.source.path is not set"),
        (str(tmp_path / "tabel.parquet"), "did you mean 'table.parquet'"),
        (str(tmp_path / "bad.parquet"), "cannot be loaded"),
        (str(tmp_path / "a.xls"), "is none of .parquet"),
        (str(tmp_path / "empty"), "cannot be loaded"),
        (
            "nobody/nothing-of-the-kind",
            "the data set 'nobody/nothing-of-the-kind' cannot be loaded",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            hub(path)
        assert message in str(error.value)


def test_a_hub_that_cannot_be_reached_is_asked_once(tmp_path, monkeypatch, capfd):
    tried = []

    def connect(address, *_):
        tried.append(address)
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", connect)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="hub cannot be reached from this machine") as error:
        hub("nobody/nothing-of-the-kind", cache=str(tmp_path))
    assert "\n" not in str(error.value) and time.monotonic() - start < 8  # 24 s of retries before
    assert tried == [("huggingface.co", 443)] and "Retry" not in "".join(capfd.readouterr())


class Refusing(BaseHTTPRequestHandler):
    """A proxy that reaches nobody."""

    def do_CONNECT(self):
        self.send_error(502)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("answers", [False, True])
def test_a_proxy_that_leads_nowhere_is_asked_once(tmp_path, monkeypatch, capfd, answers):
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port if answers else 9  # where nobody listens
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        with pytest.raises(ConfigError, match="hub cannot be reached from this machine"):
            hub("nobody/nothing-of-the-kind", cache=str(tmp_path))
        assert time.monotonic() - start < 15 and "Retry" not in "".join(capfd.readouterr())
        server.shutdown()


def test_images_must_be_alike_and_labelled(pictures):
    mixed = [*PIXELS[:20], *PIXELS[20:, :4]]
    with pytest.raises(ConfigError, match=r"has shape \(3, 4, 5\), the first one \(3, 6, 5\)"):
        ready(pictures(mixed))
    assert ready(pictures(mixed), resize=[6, 5]).info.input_shape == (3, 6, 5)
    with pytest.raises(ConfigError, match=r"data\.source\.resize is"):
        hub(pictures(), resize=[1, 2, 3])
    with pytest.raises(
        ConfigError, match=r"30 of 30 samples have no label \(-1\): set data.source.unlab"
    ):
        hub(pictures(labels=[-1] * 30))


def test_rows_without_a_label_are_left_out_with_their_images(pictures, columns):
    labels = [k % 3 if k % 5 else -1 for k in range(30)]
    samples = hub(pictures(labels=labels), unlabelled="drop")
    kept = [k for k in range(30) if k % 5]
    assert samples.y.tolist() == [k % 3 for k in kept] and len(samples.x) == 24
    assert torch.equal(samples.x[3], hub(pictures()).x[kept[3]])
    assert samples.notes == ["6 of 30 samples have no label and are left out"]
    for gaps in ([0, None, 1, 1], ["a", None, "b", ""]):
        path = columns(a=[1.0, 2.0, 3.0, 4.0], label=gaps)
        with pytest.raises(ConfigError, match=r"[12] of 4 samples have no label \(null"):
            hub(path)
        samples = hub(path, unlabelled="drop")
        assert samples.task == "classification"
        assert samples.x[:, 0].tolist() == [k + 1.0 for k in range(4) if gaps[k] not in (None, "")]


def test_the_library_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'truerisk\[hub\]'"):
        hub("somebody/something")
