from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """Train recipes as one stacked model: their results, in their order."""
    from truerisk.config.compose import compose
    from truerisk.result import RunResult
    from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup

    def stack(*recipes, **options):
        root = tmp_path_factory.mktemp("stack")
        jobs = [GroupJob(compose(recipe), root / str(i), {}) for i, recipe in enumerate(recipes)]
        group = StackedGroup(jobs, **options)
        group.train()
        assert not group.refused
        return [RunResult(job.folder) for job in jobs]

    return stack


@pytest.fixture(scope="session")
def distance(last_weights):
    """How far two runs are apart: the largest relative difference of weights and of records."""

    def distance(ours, theirs):
        a, b = last_weights(ours), last_weights(theirs)
        assert list(a) == list(b)
        weights = max(_relative(a[k], b[k]) for k in a)
        mine, other = ours.history, theirs.history
        for column in ("step", "name"):
            assert mine[column].tolist() == other[column].tolist()
        assert mine.epoch.fillna(-1).tolist() == other.epoch.fillna(-1).tolist()
        assert ours.summary.keys() == theirs.summary.keys()
        pairs = zip(mine.value, other.value, strict=True)
        records = max(abs(x - y) / max(abs(y), 1e-3) for x, y in pairs)
        return SimpleNamespace(weights=weights, records=records)

    return distance


def _relative(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


@pytest.fixture(scope="session")
def same(stack, run, distance):
    """Assert that recipes trained together equal the same recipes trained alone."""

    def same(*recipes, within=1e-10):
        for ours, recipe in zip(stack(*recipes), recipes, strict=True):
            theirs = run(*recipe)
            apart = distance(ours, theirs)
            assert max(apart.weights, apart.records) < within
            assert (ours.status, ours.reason) == (theirs.status, theirs.reason)
            best = torch.load(ours.run.best, weights_only=True)
            assert list(best["state"]) == list(torch.load(theirs.run.best)["state"])

    return same


@pytest.fixture
def jobs(tmp_path):
    from truerisk.config.compose import compose
    from truerisk.sweeps.launcher.stacked_group import GroupJob

    def jobs(recipes):
        return [GroupJob(compose(r), tmp_path / str(i), {}) for i, r in enumerate(recipes)]

    return jobs


@pytest.fixture
def compiled(monkeypatch):
    """Compile the steps of short runs too; tells of each kind of tensors whether that was done."""
    from truerisk.engine.stacked.member_code import compiled_function
    from truerisk.engine.stacked.member_code.compiled_function import CompiledFunction
    from truerisk.engine.stacked.member_code.machine_code import find_blas, find_compiler

    if find_compiler() is None or find_blas() is None:
        pytest.skip("no compiler of C, or no BLAS of torch's")
    found = []

    def find_code(self, tensors):
        found.append(find_for_real(self, tensors) is not None)
        return find_for_real(self, tensors)

    find_for_real = CompiledFunction.find_code
    monkeypatch.setattr(CompiledFunction, "find_code", find_code)
    monkeypatch.setattr(compiled_function, "COMPILED_FROM", 0)
    return found
