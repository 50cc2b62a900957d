"""Optimizers under max-norm: those that reach the minimum on the feasible set, and the others."""

from __future__ import annotations

import pytest
import torch

from truerisk.combinations import check_combinations
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.optimizer import needs_of
from truerisk.regularizer import Regularizer

GIVEN = ["data=iris", "data.batch_size=full", "model=linear", "trainer.precision=64-true"]
BOUND = ["regularizer=max_norm", "regularizer.max_norm.bound=1"]


@pytest.mark.parametrize("name", ["gd", "momentum", "sam"])
def test_a_gradient_step_reaches_the_constrained_minimum(name, stepping, micro_batches):
    """There ∇J of a unit's weights points straight at them, and that of the biases is zero."""
    numbers = ["optimizer.lr=1" if name == "gd" else "optimizer.lr=0.3"]
    if name == "sam":
        numbers = ["optimizer.base.lr=0.1", "optimizer.rho=0"]
    recipe, step = stepping(*GIVEN, *BOUND, f"optimizer={name}", *numbers)
    (batch,) = list(micro_batches(recipe, 1))
    for _ in range(1000):
        step(list(batch))
    step.gradient(list(batch))
    (weight, bias) = recipe.model.parameters()
    norms, slopes = weight.norm(dim=1), (weight * weight.grad).sum(1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert (slopes < 0).all()  # J would fall beyond the bound
    across = weight.grad - slopes[:, None] * weight
    assert across.norm() < 0.02 * weight.grad.norm() and bias.grad.norm() < 0.003


@pytest.mark.parametrize("name", ["lbfgs", "lbfgs_backtracking", "newton", "gd_exact"])
def test_what_chooses_steps_by_j_is_refused(name):
    """Their last point before the projection was never looked at: they end beside that minimum."""
    cfg = compose([*GIVEN, *BOUND, f"optimizer={name}"])
    with pytest.raises(ConfigError, match=r"regularizer=max_norm moves the weights"):
        check_combinations(cfg)


def test_projections_of_ones_own_count_and_lbfgs_of_any_library():
    class Clamp(Regularizer):
        def project(self, params): ...

    import pytorch_optimizer

    assert not needs_of(pytorch_optimizer.LBFGS).projection
    assert not needs_of(torch.optim.LBFGS).projection
    cfg = compose([*GIVEN, *BOUND, "optimizer=lbfgs"])
    cfg.regularizer.max_norm._target_ = f"{__name__}.Clamped"
    globals()["Clamped"] = Clamp
    with pytest.raises(ConfigError, match="moves the weights"):
        check_combinations(cfg)


def test_a_gradient_in_the_objective_is_not_compiled():
    cfg = compose(["regularizer=input_gradient", "compile=true"])
    with pytest.raises(ConfigError, match="set compile=false"):
        check_combinations(cfg)
