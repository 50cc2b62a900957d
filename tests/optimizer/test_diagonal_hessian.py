"""AdaHessian and Sophia-H: pytorch_optimizer's, against the papers' formulas; and their graph."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from truerisk.core.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
A = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 0.1]], dtype=torch.float64)
W = torch.tensor([1.5, -0.4, 2.0], dtype=torch.float64)
IRIS = ["data=iris", "model.width=6", "model.activation=tanh", "regularizer=[]"]
pytestmark = pytest.mark.filterwarnings("ignore:.*create_graph=True.*")


def optimizer_of(name, w, **numbers):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=[f"+optimizer={name}"]).optimizer
    return instantiate(node, _partial_=True, _convert_="all", **numbers)([w])


def step(optimizer, w, H):
    """A step on ½ wᵀHw."""
    w.grad = None
    (0.5 * w @ H @ w).backward(create_graph=True)
    optimizer.step()


def leaf():
    return W.clone().requires_grad_()


def test_adahessian_is_newton_on_a_diagonal_quadratic():
    H, b = torch.diag(torch.tensor([5.0, 0.1, 30.0], dtype=torch.float64)), W.flip(0)
    w = leaf()
    optimizer = optimizer_of("adahessian", w, lr=1.0, betas=(0.0, 0.0), eps=0.0)
    (0.5 * w @ H @ w - b @ w).backward(create_graph=True)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.linalg.solve(H, b), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["adahessian", "sophia"])
def test_the_diagonal_is_estimated_without_bias(name):
    """By z ⊙ Hz: its error after n steps is within four standard errors, Σ_{j≠i} H_ij²/n."""
    torch.manual_seed(0)
    w, n = leaf(), 3000
    optimizer = optimizer_of(name, w, lr=0.0)
    optimizer.update_period = 1
    total = torch.zeros(3, dtype=torch.float64)
    for _ in range(n):
        step(optimizer, w, A)
        total += optimizer.state[w]["hessian"]
    variance = (A**2).sum(1) - A.diag() ** 2
    if name == "sophia":  # Gaussian probes: 2 H_ii² more
        variance = variance + 2 * A.diag() ** 2
    assert ((total / n - A.diag()).abs() < 4 * (variance / n).sqrt()).all()


def test_first_steps_of_adahessian():
    """Adam with (z ⊙ Hz)² in place of the squared gradient."""
    w, expected = leaf(), W
    optimizer = optimizer_of("adahessian", w, lr=0.1, betas=(0.9, 0.99), eps=0.01)
    m, v = torch.zeros_like(W), torch.zeros_like(W)
    torch.manual_seed(5)
    for _ in range(3):
        step(optimizer, w, A)
    torch.manual_seed(5)
    for t in range(1, 4):
        z = torch.randint_like(W, 0, 2) * 2 - 1
        assert set(z.tolist()) <= {-1.0, 1.0}
        m, v = 0.9 * m + 0.1 * A @ expected, 0.99 * v + 0.01 * (z * (A @ z)) ** 2
        expected = expected - 0.1 * m / (1 - 0.9**t) / ((v / (1 - 0.99**t)).sqrt() + 0.01)
    torch.testing.assert_close(w.detach(), expected, rtol=0, atol=1e-14)


def test_first_steps_of_sophia():
    """w ← w − lr · clip(m / max(h, ε), p), with h renewed every k steps (Liu et al., alg. 3)."""
    w, expected = leaf(), W
    optimizer = optimizer_of("sophia", w, lr=0.5, p=1.0, update_period=2)
    m, h, clipped = torch.zeros_like(W), torch.zeros_like(W), 0
    torch.manual_seed(5)
    for _ in range(12):
        step(optimizer, w, A)
    torch.manual_seed(5)
    for t in range(12):
        m = 0.96 * m + 0.04 * A @ expected
        if t % 2 == 0:
            z = torch.randn_like(W)
            h = 0.99 * h + 0.01 * z * (A @ z)
        ratio = m / h.clamp_min(1e-12)
        clipped += (ratio.abs() > 1).sum().item()
        expected = expected - 0.5 * ratio.clamp(-1, 1)
    assert 0 < clipped < 36
    torch.testing.assert_close(w.detach(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["adahessian", "sophia"])
def test_state_round_trip(name, tmp_path):
    w = leaf()
    optimizer = optimizer_of(name, w)
    torch.manual_seed(0)
    for _ in range(5):
        step(optimizer, w, A)
    torch.save([optimizer.state_dict(), torch.get_rng_state()], tmp_path / "state.pt")
    v = w.detach().clone().requires_grad_()
    for _ in range(15):
        step(optimizer, w, A)
    state, draws = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = optimizer_of(name, v)
    resumed.load_state_dict(state)
    torch.set_rng_state(draws)
    for _ in range(15):
        step(resumed, v, A)
    assert torch.equal(w, v)


@pytest.mark.parametrize("name", ["adahessian", "sophia"])
def test_nothing_is_left_of_a_finished_run(name, stepping, micro_batches):
    """A gradient with a graph holds its own parameter, out of reach of any collector."""

    def run():
        recipe, take = stepping(*IRIS, f"optimizer={name}", "data.batch_size=10")
        for micro in micro_batches(recipe, 3):
            take(micro)
        assert all(p.grad.grad_fn is None for p in take.params)
        return [weakref.ref(p) for p in take.params]

    left = run()
    gc.collect()
    assert [ref() for ref in left] == [None] * 6


def resident():
    """Megabytes of memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow(stepping, micro_batches):
    """A step's graph holds about a megabyte."""
    given = ["data=mnist1d", "data.num_train=300", "data.batch_size=full", "regularizer=[]"]
    recipe, take = stepping(*given, "optimizer=sophia")
    (micro,) = micro_batches(recipe, 1)
    for _ in range(20):
        take(micro)
    before = resident()
    for _ in range(200):
        take(micro)
    assert resident() - before < 20


def test_accumulated_gradients_keep_their_curvature(stepping, micro_batches):
    """Two halves give the step of the whole, with the Hessian of both."""
    ends = []
    for given in (["step.accumulate=1"], ["step.accumulate=3"]):
        recipe, take = stepping(*IRIS, "optimizer=adahessian", "data.batch_size=full", *given)
        torch.manual_seed(0)
        for micro in micro_batches(recipe, 3):
            take(micro)
        ends.append([p.detach() for p in take.params])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["adahessian", "sophia"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["compile=true"], "compile=false"),
        (["recompute=true"], "recompute=false"),
        (["step.clip.norm=1"], r"step\.clip\.norm"),
        (["loss=hinge"], "piecewise linear in 'output"),
    ],
)
def test_refusals(name, given, message, stepping, micro_batches):
    with pytest.raises(ConfigError, match=message):
        recipe, take = stepping("data=iris", "regularizer=[]", f"optimizer={name}", *given)
        take(next(micro_batches(recipe, 1)))


def test_several_processes_are_refused(stepping):
    from truerisk.engine.several_looks import make_step

    _, take = stepping(*IRIS, "optimizer=adahessian")
    take.host.world_size = 2
    recipe, _ = stepping(*IRIS, "optimizer=adahessian")
    with pytest.raises(ConfigError, match=r"trainer\.devices=1"):
        make_step(recipe, take.objective, take.optimizer, take.schedule, take.host)


class Attending(nn.Module):
    """A model that calls fused attention, or the same written out."""

    attend = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, input_shape, output_size, bias, dtype):
        super().__init__()
        self.inputs, self.outputs = nn.Linear(1, 12), nn.Linear(4, output_size)

    def forward(self, x):
        queries, keys, values = self.inputs(x.unsqueeze(2)).chunk(3, -1)
        return self.outputs(self.attend(queries, keys, values).mean(1))


class Written(Attending):
    @staticmethod
    def attend(queries, keys, values):
        return (queries @ keys.mT / 2).softmax(-1) @ values


@pytest.mark.filterwarnings("ignore:.*create_graph=True.*")
@pytest.mark.parametrize("name", ["adahessian", "sophia"])
def test_fused_attention_is_differentiated_twice(name, stepping, micro_batches, monkeypatch):
    """torch's fused kernels have no second derivative: the step is that of attention by hand."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Attending.__module__])
    weights = []
    for kind in (Attending, Written):
        given = ["data=iris", "model=linear", f"model._target_={__name__}.{kind.__name__}"]
        recipe, step = stepping(*given, f"optimizer={name}")
        torch.manual_seed(0)
        for micro in micro_batches(recipe, 2):
            step(list(micro))
        weights.append([p.detach() for p in recipe.model.parameters()])
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)
