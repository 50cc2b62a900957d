from __future__ import annotations

import io
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, Samples, gaussians, iris, mnist1d, polynomial, teacher
from truerisk.data.encoder import Standardizer
from truerisk.data.split import TensorSplit

CONF = Path(__file__).parents[2] / "conf" / "data"
ELSEWHERE = ("table", "arrays", "hub", "none", "cifar10", "cifar100", "mnist", "fashion_mnist")
READY = sorted(p.stem for p in CONF.glob("[!_]*.yaml") if p.stem not in ELSEWHERE)


def blobs(n=200, classes=4, task="classification", test=False):
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(n, 3, generator=draw, dtype=torch.float64) * 7 + 2
    y = torch.arange(n) % classes if task == "classification" else x.sum(1, keepdim=True)
    return Samples(x, y, task, test=(x[:10], y[:10]) if test else None)


def labels():
    x = blobs().x
    return Samples(x, (x > 2).long(), "multilabel")


def ready(source=blobs, **options):
    module = DataModule(source, **options)
    module.prepare()
    return module


@pytest.mark.parametrize("option", READY)
def test_every_option_builds_and_leaves_the_global_generators_alone(option):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(option)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    module = instantiate(cfg, seed=3)
    module.prepare()
    again = instantiate(cfg, seed=3)
    again.prepare()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
    for name in ("train", "val", "test"):
        split, twin = getattr(module, name), getattr(again, name)
        if split is None:  # of all pairs modulo a prime
            continue
        assert split.x.shape[1:] == module.info.input_shape
        assert torch.equal(split.x, twin.x) and torch.equal(split.y, twin.y)
    other = instantiate(cfg, seed=4)
    other.prepare()
    assert not torch.equal(other.train.x, module.train.x)


def test_seeds_draw_other_samples_of_the_same_population():
    a, b = (ready(partial(gaussians, classes=3), seed=s) for s in (0, 1))
    assert torch.equal(a.population.means, b.population.means)
    assert not torch.equal(a.train.x, b.train.x)
    fixed = [ready(partial(gaussians, seed=9), seed=s, standardize="none") for s in (0, 1)]
    both = [torch.cat([f.train.x, f.val.x, f.test.x]).sort(0).values for f in fixed]
    assert torch.equal(*both) and not torch.equal(fixed[0].train.x, fixed[1].train.x)


def test_splits_are_disjoint_and_cover():
    samples = blobs()
    module = ready(samples, standardize="none")
    rows = [
        {tuple(row.tolist()) for row in getattr(module, name).x}
        for name in ("train", "val", "test")
    ]
    assert [len(r) for r in rows] == [120, 40, 40]
    assert set.union(*rows) == {tuple(row.tolist()) for row in samples.x}


@pytest.mark.parametrize(
    ("kind", "axes"), [("feature", (0,)), ("channel", (0, 2)), ("global", (0, 1, 2))]
)
def test_standardization_is_fitted_on_the_training_samples_only(kind, axes):
    x = torch.randn(60, 2, 5, generator=torch.Generator().manual_seed(1)).double() * 3 + 1
    samples = Samples(x, torch.arange(60) % 2, "classification")
    bare = ready(samples, standardize="none", num_train=20)
    module = ready(samples, standardize=kind, num_train=20)
    train = bare.train.x.numpy()
    mean, std = train.mean(axes, keepdims=True), train.std(axes, keepdims=True)
    for name in ("train", "val", "test"):
        expected = (getattr(bare, name).x.numpy() - mean) / std
        np.testing.assert_allclose(
            getattr(module, name).x.numpy(), expected, rtol=1e-12, atol=1e-12
        )
    assert torch.allclose(module.raw(module.val.x), bare.val.x, rtol=1e-13)


def test_constant_features_are_not_scaled_and_targets_stay_raw():
    x = torch.cat([torch.full((50, 1), 0.1), torch.arange(50.0).view(-1, 1)], 1).double()
    samples = Samples(x, x.sum(1, keepdim=True), "regression")
    module = ready(samples)
    assert module.train.x[:, 0].abs().max() < 1e-12
    assert module.standardizer.scale[0] == 1
    assert set(module.train.y.flatten().tolist()) <= set(samples.y.flatten().tolist())


def test_standardization_agrees_with_scikit_learn():
    from sklearn.preprocessing import StandardScaler

    bare, module = ready(iris, standardize="none"), ready(iris)
    scaler = StandardScaler().fit(bare.train.x.numpy())
    expected = scaler.transform(bare.test.x.numpy())
    np.testing.assert_allclose(module.test.x.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_label_noise_hits_the_training_labels_only():
    clean = ready(partial(blobs, 4000), label_noise=0.0)
    module = ready(partial(blobs, 4000), label_noise=0.3)
    wrong = clean.train.y != module.train.y
    assert int(wrong.sum()) == round(0.3 * 2400)
    assert torch.equal(clean.val.y, module.val.y) and torch.equal(clean.test.y, module.test.y)
    shift = (module.train.y - clean.train.y)[wrong] % 4
    counts = torch.bincount(shift, minlength=4)[1:]
    chi2 = ((counts - 240.0) ** 2 / 240).sum()
    assert chi2 < 13.8  # the 0.999 quantile with two degrees of freedom


def test_label_noise_moves_the_training_quantities_only():
    clean, module = (
        ready(partial(blobs, 4000, task="regression"), label_noise=share) for share in (0.0, 0.1)
    )
    moved = module.train.y - clean.train.y
    assert int((moved != 0).sum()) == 240
    (note,) = set(module.notes) - set(clean.notes)
    assert note.startswith("data.label_noise=0.1 moves training targets alone")
    deviation = float(clean.train.y.std(correction=0))
    torch.testing.assert_close(
        moved[moved != 0].double(), torch.full((240,), 10 * deviation).double()
    )
    assert torch.equal(clean.val.y, module.val.y) and torch.equal(clean.test.y, module.test.y)


def test_num_train_is_stratified_and_nested():
    small, large = (ready(num_train=m, standardize="none") for m in (20, 60))
    assert small.num_train == 20 and torch.bincount(small.train.y).tolist() == [5, 5, 5, 5]
    rows = [{tuple(r.tolist()) for r in m.train.x} for m in (small, large)]
    assert rows[0] < rows[1]


def test_a_source_s_own_test_set_is_the_test_set():
    module = ready(partial(blobs, test=True), standardize="none", test=0.5)
    assert torch.equal(module.test.x, blobs().x[:10])
    assert len(module.train) + len(module.val) == 200


def test_no_test_set_and_every_sample_a_test_sample():
    assert ready(test=None).test is None
    module = ready(test="all", standardize="none")
    assert len(module.test) == 200 and module.train is None and module.num_train == 0


def test_state_takes_scaling_to_other_data_and_loads_with_weights_only():
    module = ready()
    kept = io.BytesIO()
    torch.save(module.state_dict(), kept)
    kept.seek(0)
    other = DataModule(lambda: Samples(blobs().x * 5, blobs().y, "classification"), test="all")
    other.load_state_dict(torch.load(kept, weights_only=True))
    other.prepare()
    expected = (blobs().x * 5 - module.standardizer.mean) / module.standardizer.scale
    assert torch.equal(other.test.x, expected)
    assert torch.equal(other.standardizer.mean, module.standardizer.mean)


def test_state_loaded_late_counts_too():
    module, other = ready(seed=0), ready(seed=1)
    x = module.train.x
    module.load_state_dict(module.state_dict())
    assert module._ready
    module.load_state_dict(other.state_dict())
    module.prepare()
    assert torch.equal(module.standardizer.mean, other.standardizer.mean)
    assert not torch.equal(module.train.x, x)


def test_classes_of_other_data_are_renumbered():
    named = Samples(blobs().x, blobs().y, "classification", class_names=["a", "b", "c", "d"])
    module = ready(named)
    part = named.y.remainder(4) >= 2
    fewer = Samples(named.x[part], named.y[part] - 2, "classification", class_names=["c", "d"])
    other = DataModule(fewer, test="all")
    other.load_state_dict(module.state_dict())
    other.prepare()
    assert torch.equal(other.test.y, named.y[part]) and other.info == module.info


def test_fresh_samples_are_standardized_and_placed_like_the_splits():
    module = ready(partial(teacher, dimension=2), standardize="feature")
    module.test = module.test.to("cpu", torch.float64)
    batch = module.sample(1000, torch.Generator().manual_seed(0))
    x, y = module.population.sample(1000, torch.Generator().manual_seed(0))
    assert batch.x.dtype == batch.y.dtype == torch.float64
    assert torch.allclose(module.raw(batch.x), x.double(), atol=1e-6)
    assert torch.equal(batch.y, y.double())


def test_the_lightning_hook_prepares():
    module = DataModule(blobs)
    module.setup("fit")
    train = module.train
    module.prepare()
    assert module.train is train and module.info[:4] == ("classification", (3,), 4, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"batch_size": "ful"}, "data.batch_size is 'ful'"),
        ({"batch_size": 2.5}, "data.batch_size is 2.5"),
        ({"val": 0}, "data.val=0 of 200 samples is an empty split"),
        ({"val": 0.001}, "data.val=0.001 of 200 samples is an empty split"),
        ({"val": -1}, "data.val is -1"),
        ({"val": 1.5}, "data.val is 1.5"),
        ({"val": None}, "data.val is None"),
        ({"test": 0}, "or null to do without"),
        ({"test": "some"}, "data.test is 'some'"),
        ({"test": "all"}, "data.test=all leaves nothing to train on"),
        ({"source": partial(blobs, test=True), "test": "all"}, "its own test set"),
        ({"val": 100, "test": 100}, "take 200 of 200 samples"),
        ({"num_train": 121}, "data.num_train is 121: the training split has 120"),
        ({"num_train": 0}, "data.num_train is 0"),
        ({"label_noise": 1.5}, "data.label_noise is 1.5"),
        (
            {"source": labels, "label_noise": 0.1},
            "multi-label data has no class labels: set it to 0",
        ),
        ({"standardize": "globl"}, "did you mean 'global'"),
        ({"in_memory": "no"}, "data.in_memory is 'no'"),
        ({"workers": -1}, "data.workers is -1"),
        ({"source": partial(blobs, classes=100)}, "class '0' has 2 of the 3 samples"),
        ({"source": partial(blobs, classes=1)}, "fewer than two classes"),
        ({"source": partial(blobs, task="regresion")}, "data.source.task is 'regresion'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError) as error:
        ready(**options)
    assert message in str(error.value)


def test_unknown_populations_are_refused():
    with pytest.raises(ConfigError, match="distribution of this data is not known"):
        ready().sample(3, torch.Generator())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: Samples(torch.ones(9, 2), torch.arange(9) % 4, "classification"), "input_shape"),
        (partial(blobs, task="regression"), "task classification"),
        (partial(blobs, classes=3), "num_outputs 4"),
    ],
)
def test_other_data_must_fit_the_run(other, message):
    module = DataModule(other, test="all")
    module.load_state_dict(ready().state_dict())
    with pytest.raises(ConfigError, match=message):
        module.prepare()


def test_strange_classes_are_refused():
    a, b = (
        Samples(blobs().x, blobs().y, "classification", class_names=names)
        for names in (["a", "b", "c", "d"], ["a", "b", "c", "e"])
    )
    module = DataModule(b)
    module.load_state_dict(ready(a).state_dict())
    with pytest.raises(ConfigError, match="class 'e' is not among"):
        module.prepare()


def test_more_inputs_than_targets_are_refused():
    with pytest.raises(ConfigError, match="3 inputs x but 2 targets"):
        Samples(torch.ones(3, 1), torch.tensor([0, 1]), "classification")


def test_importing_the_group_does_not_import_the_heavy_libraries():
    import subprocess
    import sys

    code = (
        "import sys, truerisk.data; heavy = {'lightning', 'sklearn', 'pandas', 'scipy', 'datasets',"
        " 'matplotlib'}; print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_sources_take_the_numbers_of_their_yaml():
    for name, function in (("mnist1d", mnist1d), ("polynomial", polynomial), ("teacher", teacher)):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(name)
        keys = set(cfg.source) - {"_target_", "_partial_"}
        assert keys == set(function.__code__.co_varnames[: function.__code__.co_argcount])


@pytest.mark.parametrize("size", [1, 8, 16, 37])
@pytest.mark.parametrize("features", [4, 5])
@pytest.mark.parametrize("kept", [False, True], ids=["own tensor", "source's tensor"])
def test_batches_read_together_are_those_read_alone(size, features, kept):
    draw = torch.Generator().manual_seed(1)
    x, rows, fitted = torch.randn(200, features, generator=draw), None, None
    if kept:
        rows = torch.randperm(200, generator=draw)[:100]
        fitted = Standardizer.fit("feature", [x])
    split = TensorSplit(x[:100] if rows is None else x, torch.arange(100), rows, fitted, kept)
    each = x[:100] if rows is None else torch.stack([fitted(x[row]) for row in rows])
    plan = torch.randperm(100, generator=draw).split(size)
    for index, batch in zip(plan, split.batches(plan), strict=True):
        assert torch.equal(batch.x, each[index]) and torch.equal(batch.y, index)
        # Where a batch begins in a cache line decides the last digits of its products; of a
        # single sample there is no copy.
        assert size == 1 or batch.x.data_ptr() % 64 == 0
    assert list(split.batches([])) == []
