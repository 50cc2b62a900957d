from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def objective_value():
    """J on a step's micro-batches, at the weights that its model has."""

    @torch.no_grad()
    def evaluate(step, micro_batches):
        return sum(share * step.objective(None, b).objective.item() for b, share in micro_batches)

    return evaluate


@pytest.fixture
def function_problem():
    """J(w) = f(w) for a function of a flat vector, whatever the samples: ``(w, new problem)``."""
    from torch import nn

    from truerisk.core.batch import Batch
    from truerisk.objective import Objective
    from truerisk.objective.step_objective import StepObjective

    class Function(nn.Module):
        def __init__(self, f, start):
            super().__init__()
            self.f, self.w = f, nn.Parameter(torch.tensor(start, dtype=torch.float64))

        def forward(self, x):
            return self.f(self.w).expand(len(x), 1)

    def make(f, start):
        model, batch = Function(f, start), Batch(torch.zeros(2, 1), torch.zeros(2, 1))
        objective = Objective(model, lambda outputs, y: outputs.squeeze(1))
        return model.w, lambda: StepObjective(objective, [(batch, 1.0)])

    return make
