import subprocess
import sys

import pytest
import torch
from torch.func import functional_call

from truerisk.engine.stacked.member_code.layout import NotKnown
from truerisk.engine.stacked.member_code.recording import record_operations

WEIGHTS = torch.tensor([1.0, 0.5, 2.0])
MODEL = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh())


def squares(x, y):
    value = ((x @ y) ** 2).sum()
    return torch.autograd.grad(value, (x, y))


def in_place(x, y):
    z = x.clone()
    z[:, 1:].mul_(y[0, 0])
    return z.t().contiguous(), x.add_(1.0)


def several(x, y):
    values, places = torch.max(x, dim=1)
    return values, places, torch.var_mean(y, dim=0)[0]


def constants(x, y):
    chosen = WEIGHTS[torch.tensor([2, 0])]
    return x[:, :3] * WEIGHTS, y + torch.tensor(2.0), chosen[x[:, 0].gt(0).long()]


def stacked(x, y):
    def loss(weight, row):
        outputs = functional_call(MODEL, {"0.weight": weight}, (row,))
        return torch.nn.functional.cross_entropy(outputs[None], torch.tensor([1]), WEIGHTS)

    weight = x[:3].expand(4, 3, 5)
    return (torch.vmap(torch.func.grad(loss))(weight, y.t()[:4, :5]),)


@pytest.mark.parametrize("function", [squares, in_place, several, constants, stacked])
def test_played_back_it_does_the_same_to_other_numbers(function):
    def draw(seed):
        torch.manual_seed(seed)
        return [torch.randn(a, b, requires_grad=function is squares) for a, b in ((6, 5), (5, 6))]

    recording = record_operations(function, draw(0))
    for own, played in zip(function(*draw(1)), recording(*draw(1)), strict=True):
        assert torch.equal(own, played)


def test_what_no_result_needs_is_left_out():
    recording = record_operations(lambda x: (x.exp() if x.cos().ndim else x,), [torch.ones(3)])
    names = [str(node.target) for node in recording.graph.nodes if node.op == "call_function"]
    assert names == ["aten.exp.default"]


def test_a_view_of_an_argument_made_elsewhere_is_not_taken_for_a_constant():
    x = torch.ones(4)
    part = x[:2]
    with pytest.raises(NotKnown, match="no recording sees it"):
        record_operations(lambda x: (x.mul_(2), part + 1), [x])


@pytest.mark.parametrize("decide", [lambda x: x * x.max().item(), lambda x: x[x > 1]])
def test_what_depends_on_the_numbers_is_not_recorded(decide):
    with pytest.raises(NotKnown, match="other numbers would change"):
        record_operations(lambda x: (decide(x),), [torch.arange(3.0)])


def test_a_tensor_without_numbers_is_no_constant():
    other = torch.ones(3, device="meta")
    with pytest.raises(NotKnown, match="no recording sees it"):
        record_operations(lambda x: (x + other,), [torch.ones(3, device="meta")])


def test_without_numbers_constants_keep_theirs():
    x = torch.empty(6, 5, device="meta")
    recording = record_operations(constants, [x, x])
    kept = [getattr(recording, n.target) for n in recording.graph.nodes if n.op == "get_attr"]
    assert [tensor.tolist() for tensor in kept] == [[2, 0], WEIGHTS.tolist(), 2.0]
    assert all(node.meta["val"].is_meta for node in recording.graph.nodes if "val" in node.meta)


def test_nothing_of_it_loads_dynamo():
    """In a process of its own, as nothing that is loaded can be taken back."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DYNAMO], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


WITHOUT_DYNAMO = """
import sys
import torch
from truerisk.engine.stacked.member_code.program import write_program
from truerisk.engine.stacked.member_code.recording import record_operations

def step(x, w, v):
    outputs = torch.vmap(lambda x, w, v: (torch.relu(x @ w).tanh() @ v).log_softmax(1))(x, w, v)
    return torch.autograd.grad(outputs.square().sum(), (w, v))

tensors = [torch.ones(5, *shape, requires_grad=True) for shape in ((3, 4), (4, 2), (2, 6))]
record_operations(step, tensors)
assert "exp" in write_program(step, tensors).source
assert "torch._dynamo" not in sys.modules
"""
