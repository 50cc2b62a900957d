"""The density of eigenvalues, against dense matrices."""

from __future__ import annotations

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.diagnostics import Spectrum
from truerisk.objective import SpectralDensity


def test_at_the_last_weights(watched, hessian):
    values = torch.linalg.eigvalsh(hessian)
    last, kept = watched.tables["spectrum"].iloc[-1], watched.kept["spectrum"]
    assert last["lambda_max"] == pytest.approx(float(values[-1]), rel=1e-6)
    assert last["lambda_min"] == pytest.approx(float(values[0]), rel=1e-3)
    found = SpectralDensity(*(torch.from_numpy(kept[name][-1]) for name in ("nodes", "weights")))
    for order in (1, 2):
        moment = found.moment(order)
        assert abs(moment.value - (values**order).mean()) < 5 * moment.stderr
    near = 0.01 * float(values.abs().max())
    exact = float((values.abs() <= near).double().mean())
    assert last["near_zero"] == pytest.approx(exact, abs=0.1)
    assert last["near_zero"] + last["negative"] < 1


def test_the_looks_are_kept(watched):
    kept, table = watched.kept["spectrum"], watched.tables["spectrum"]
    assert kept["step"].tolist() == table.index.tolist() == [0, 5, 10, 12]
    assert kept["nodes"].shape == kept["weights"].shape == (4, 4, 64)
    assert kept["nodes"].max((1, 2)).tolist() == pytest.approx(table["lambda_max"].tolist())


def test_gauss_newton_has_no_negative_eigenvalues(run):
    short = ["data=iris", "model.width=16", "trainer.max_epochs=1", "trainer.precision=64-true"]
    eyes = ["diagnostics=[spectrum]", "diagnostics.spectrum.of=gauss_newton"]
    result = run(*short, *eyes, "diagnostics.spectrum.steps=20")
    lowest = result.history.query("name == 'spectrum/lambda_min'").value
    highest = result.history.query("name == 'spectrum/lambda_max'").value
    assert len(lowest) == 2
    assert (lowest.to_numpy() > -1e-12 * highest.to_numpy()).all()


def test_all_eigenvalues_of_a_small_matrix(on_function):
    bowl = ["model=quadratic_bowl", "model.spectrum=[-1.0,0.0,1.0,5.0]", "model.rotation=3"]
    look = ["diagnostics=[spectrum]", "optimizer=gd", "trainer.max_epochs=1"]
    found = on_function(*bowl, "model.start=[1]", *look, "optimizer.lr=1e-3")
    nodes = found.kept["spectrum"]["nodes"][0, 0]
    assert nodes.tolist() == pytest.approx([-1, 0, 1, 5], abs=1e-9)
    assert found.tables["spectrum"]["near_zero"].iloc[0] > 0


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"diagnostics\.spectrum\.of=hesian.*hessian"):
        Spectrum(of="hesian")
    for options in ({"probes": 0}, {"steps": 1}):
        with pytest.raises(ConfigError, match=r"diagnostics\.spectrum\."):
            Spectrum(**options)
