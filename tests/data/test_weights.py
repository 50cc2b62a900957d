"""Weights of samples, and draws by class or by weight."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.data import BatchPlan

EXACT = ["model=linear", "optimizer=newton", "data.batch_size=full", "trainer.max_epochs=6",
         "trainer.precision=64-true", "data.standardize=none"]  # fmt: skip


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    draw, file = np.random.default_rng(0), tmp_path_factory.mktemp("w") / "w.npz"
    x = draw.normal(size=(200, 3))
    y = x @ [1.0, -2.0, 0.5] + draw.normal(size=200) * (1 + np.abs(x[:, 0]))
    np.savez(file, x=x, y=y, w=draw.exponential(size=200) * (x[:, 0] > 0))
    return [f"data.source.path={file}", "data=arrays", "data.source.weight=w"]


def read(overrides):
    _, data = truerisk.build_module(overrides)
    data.prepare()
    return data


def test_training_comes_to_weighted_least_squares(weighed, run):
    result = run(*weighed, "loss=mse", *EXACT, "risk.train_samples=120")
    data = read([*weighed, "loss=mse", *EXACT])
    x, y, w = data.train.x.numpy(), data.train.y.numpy(), data.weights["train"].numpy()
    assert w.mean() == pytest.approx(1)
    known = LinearRegression().fit(x, y, w)
    probe = np.eye(3)
    np.testing.assert_allclose(result.predict(probe).values, known.predict(probe), rtol=1e-5)
    # the risk that is told is the plain one
    squares = (known.predict(x) - y)[:, 0] ** 2
    assert result.summary["risk/train"].value == pytest.approx(squares.mean(), rel=1e-4)


def test_the_risk_is_a_weighted_mean_where_that_is_asked_for(weighed, run):
    recipe = [*weighed, "loss=mse", *EXACT, "risk.weighted=true"]
    result, data = run(*recipe), read(recipe)
    w, y = data.weights["test"].numpy(), data.test.y.numpy()[:, 0]
    losses = (result.predict(data.test.x).values[:, 0] - y) ** 2
    mean = (w * losses).sum() / w.sum()
    measured = result.summary["risk/test"]
    assert measured.value == pytest.approx(mean)
    influence = w * (losses - mean) / w.mean()
    assert measured.stderr == pytest.approx(influence.std(ddof=1) / len(w) ** 0.5)


def test_the_error_of_a_weighted_mean_covers():
    from truerisk.risk.estimate import GroupedEstimate

    draw, studies, n, covered = np.random.default_rng(0), 2000, 100, 0
    for _ in range(studies):
        w = draw.uniform(0.2, 1.8, size=n)
        losses = draw.normal(size=n) + w
        estimate = GroupedEstimate(n)
        estimate.update(torch.as_tensor(losses), torch.arange(n), torch.as_tensor(w))
        mean, stderr, *_ = estimate.to_measured()
        truth = 1 + 1.6**2 / 12  # E[w l] / E[w] = E[w²] / E[w]
        covered += abs(mean - truth) < 1.984 * stderr
    # 95 % within three standard errors of 2,000 draws
    assert abs(covered / studies - 0.95) < 3 * (0.95 * 0.05 / studies) ** 0.5


def test_what_is_no_weight_is_refused(weighed, tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.ones((30, 1)), y=np.arange(30.0), w=-np.ones(30))
    recipe = ["data=arrays", f"data.source.path={tmp_path}/bad.npz", "loss=mse", "model=linear"]
    with pytest.raises(ConfigError, match=r"'w' holds -1.0 in row 1"):
        read([*recipe, "data.source.weight=w"])
    with pytest.raises(ConfigError, match="'v'"):
        read([*recipe, "data.source.weight=v"])
    with pytest.raises(ConfigError, match=r"set data\.sampler=weighted"):
        truerisk.train(
            [*weighed, "loss=mse", "model=linear", "regularizer=mixup"], folder=tmp_path / "r"
        )


def test_a_table_keeps_its_weights_out_of_the_inputs(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"a": range(40), "w": [1.0, 3.0] * 20, "y": np.linspace(0, 1, 40)})
    frame.loc[5, "a"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = read([
        "data=table", f"data.source.path={tmp_path}/t.csv", "data.source.target=y", "loss=mse",
        "model=linear", "data.source.weight=w", "data.source.missing=drop", "data.standardize=none",
    ])  # fmt: skip
    assert data.info.input_shape == (1,)
    odd = data.test.x[:, 0] % 2 == 1
    assert torch.equal(data.weights["test"], torch.where(odd, 3.0, 1.0).double())


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_trainer_of_ones_own_weighs_samples_as_a_run_does(weighed, tmp_path, precision):
    import lightning as L

    plain = [*weighed[:2], "loss=mse", "model=linear", "data.batch_size=16", "figures=false",
             "trainer.max_epochs=3", f"trainer.precision={precision}"]  # fmt: skip
    given = [*plain, weighed[2]]
    truerisk.train(given, folder=tmp_path / "run")
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    quiet = dict(logger=False, enable_progress_bar=False, enable_checkpointing=False)

    def fit(**data):
        module, _ = truerisk.build_module(given)
        torch.manual_seed(module.recipe.streams.noise)
        trainer = L.Trainer(max_epochs=3, precision=precision, accelerator="cpu", **quiet)
        trainer.fit(module, **data)
        return module.state_dict(), last["state_dict"]

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"data\.source\.weight")
        # in 64 bits Lightning widens what its dataloaders give in 32, ours does not round before
        close = 0 if precision == "32-true" else 1e-7
        tolerance = {"rtol": close, "atol": close}
        torch.testing.assert_close(*fit(datamodule=read(given)), **tolerance)
        torch.testing.assert_close(*fit(), **tolerance)  # its own dataloaders
    with pytest.warns(UserWarning, match="samples count alike in training"):
        alike, ours = fit(datamodule=read(plain))
    assert not torch.allclose(alike["model.output.bias"], ours["model.output.bias"], atol=1e-4)
    x, y = next(iter(read(plain).train_dataloader()))
    pair = next(iter(read(given).train_dataloader()))
    assert torch.equal(pair[0], x) and torch.equal([*pair][1], y) and pair.weight.shape == (16,)


def test_draws_follow_their_chances():
    chances = torch.tensor([1.0, 0.0, 3.0])
    plan = BatchPlan(3, 1, draws=chances)
    drawn = torch.cat([plan.order(epoch) for epoch in range(2000)])
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    assert share[1] == 0 and abs(float(share[0]) - 0.25) < 0.02
    assert torch.equal(plan.order(7), plan.order(7))
    with pytest.raises(ConfigError, match=r"data\.sampler"):
        BatchPlan(3, "full", draws=chances)


def test_balanced_draws_see_classes_alike(run):
    rare = ["data=gaussians", "data.source.prior=[0.9,0.1]", "model=linear"]
    data = read([*rare, "data.sampler=balanced"])
    y = data.train.y
    plan = BatchPlan(len(y), 50, draws=data.sampling_chances())
    drawn = torch.cat([y[plan.order(e)] for e in range(20)])
    assert abs(float(drawn.double().mean()) - 0.5) < 0.02
    with pytest.raises(ConfigError, match="a regression has no classes"):
        run("data=diabetes", "loss=mse", "model=linear", "data.sampler=balanced")
    with pytest.raises(ConfigError, match=r"set data\.source\.weight"):
        run(*rare, "data.sampler=weighted")


def test_weighted_classes_are_scikit_learns(run, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 2))
    y = (x[:, 0] + draw.normal(size=300) > 1.5).astype(int)
    np.savez(tmp_path / "c.npz", x=x, y=y)
    recipe = ["data=arrays", f"data.source.path={tmp_path}/c.npz", "loss=bce",
              "loss.weight=balanced", *EXACT, "trainer.max_epochs=20",
              "risk.train_samples=180"]  # fmt: skip
    result, data = run(*recipe, "monitor=objective"), read(recipe)
    known = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10)
    known.fit(data.train.x.numpy(), data.train.y.numpy())
    outputs = result.predict(np.eye(2)).outputs[:, 0]
    np.testing.assert_allclose(outputs, known.decision_function(np.eye(2)), rtol=1e-3)
