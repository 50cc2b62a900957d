"""Functions as machine code, beside torch, operation by operation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from truerisk.data.encoder import Standardizer
from truerisk.engine.stacked.member_code import machine_code
from truerisk.engine.stacked.member_code.compiled_function import (
    CompiledFunction,
    PickedRows,
    pick_all,
)
from truerisk.engine.stacked.member_code.machine_code import find_blas, find_compiler

pytestmark = pytest.mark.skipif(
    find_compiler() is None or find_blas() is None, reason="no compiler of C, or no BLAS of torch's"
)
WITHIN = {torch.float32: 4e-6, torch.float64: 1e-14}


def draw(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def compile_for(function, *tensors):
    """The machine code of a function; what it gives, and what the function itself gives."""
    code = CompiledFunction(function).find_code(tensors)
    assert code is not None
    theirs = function(*(tensor.clone() for tensor in tensors))
    return code, code(tensors), theirs


def assert_equal(function, *tensors):
    _, ours, theirs = compile_for(function, *tensors)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
        if other.is_floating_point():
            within = WITHIN[other.dtype]
            torch.testing.assert_close(mine, other, rtol=within, atol=within, equal_nan=True)
        else:
            assert torch.equal(mine, other)


def differentiated(function):
    """The sum of a function, and its gradient with respect to all arguments."""

    def both(*tensors):
        own = [tensor.detach().requires_grad_() for tensor in tensors]
        value = function(*own)
        return value.detach(), *torch.autograd.grad(value.sum(), own)

    return both


def squared_product(a, b):
    """The squares of a product, whose gradients are no constants."""
    product = torch.bmm(a, b)
    return product * product


ONE = {
    "neg": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": lambda x: x.abs().add(0.1).log(),
    "sqrt": lambda x: x.abs().add(0.1).sqrt(),
    "rsqrt": lambda x: x.abs().add(0.1).rsqrt(),
    "reciprocal": lambda x: (x.abs() + 1).reciprocal(),
    "square": lambda x: x**2,
    "clamp": lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp(max=0.3),
    "round": lambda x: (4 * x).round(),
    "bounds": lambda x: torch.where(x > 0.2, x, 2 * x) + (x <= 0.1) * x + (1 - x) / 3,
    "masked": lambda x: x.masked_fill(x != x.abs(), 0.25),
    "flip": lambda x: x.flip(1, 2),
    "cat": lambda x: torch.cat([x, 2 * x[:, :3], x], 1),
    "stack": lambda x: torch.stack([x, -x], 2),
    "classes": lambda x: x.log_softmax(1) + x.log_softmax(2),
    "norms": lambda x: (
        x / torch.linalg.vector_norm(x, dim=2, keepdim=True)
        + torch.linalg.vector_norm(x, dim=1, keepdim=True)
        + torch.linalg.vector_norm(x.flatten(1), dim=1)[:, None, None]
    ),
    "sums": lambda x: x.sum(1, keepdim=True) * x.mean(2)[..., None] + x.sum((1, 2))[:, None, None],
}
ACTIVATIONS = {
    name: getattr(F, name) for name in ("relu", "gelu", "silu", "leaky_relu", "tanh", "sigmoid")
}


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("name", ONE)
def test_an_operation_is_torch_s(name, dtype):
    assert_equal(lambda x: (ONE[name](x),), draw(3, 7, 70, dtype=dtype))


@pytest.mark.parametrize("name", ONE)
def test_so_it_is_where_the_last_axis_is_not_the_closest(name):
    assert_equal(lambda x: (ONE[name](x.transpose(1, 2)),), draw(3, 7, 70))


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_are_torch_s(name, dtype):
    assert_equal(differentiated(ACTIVATIONS[name]), draw(2, 9, 33, dtype=dtype))


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("turned", [(), (0,), (1,), (0, 1)])
def test_products_of_either_layout_are_torch_s(turned, dtype):
    a, b = draw(3, 5, 17, dtype=dtype), draw(3, 17, 9, dtype=dtype)
    given = [t.mT.contiguous() if i in turned else t for i, t in enumerate((a, b))]

    def product(a, b):
        a, b = (t.mT if i in turned else t for i, t in enumerate((a, b)))
        return torch.bmm(a, b), torch.baddbmm(a[:, :, :1], a, b)

    assert_equal(product, *given)


@pytest.mark.parametrize("members", [1, 3])
def test_rows_are_picked_for_each_member(members):
    index = torch.randint(11, (members, 5), generator=torch.Generator().manual_seed(0))
    labels = PickedRows(torch.arange(11) % 3, index)
    given = [draw(members, 2, 7), PickedRows(draw(11, 2, 2), index), labels, draw(members, 5)]

    def function(w, x, y, z):
        return (torch.bmm(x.flatten(2), torch.cat([w, w], 1)), (y + 1) * z)

    code = CompiledFunction(function).find_code(given)
    assert code is not None
    gathered = pick_all(given)
    assert torch.equal(gathered[1], given[1].source[index])
    for mine, other in zip(code(given), function(*gathered), strict=True):
        torch.testing.assert_close(mine, other, rtol=4e-6, atol=4e-6)


@pytest.mark.parametrize("shape", [(), (3, 1), (3, 7)])
def test_rows_are_standardized_where_they_are_read(shape):
    source, index = draw(11, 3, 7), torch.tensor([[1, 8, 8], [0, 10, 2]])
    standardizer = Standardizer(draw(*shape), draw(*shape, seed=1).abs() + 0.1)
    given = [draw(2, 1, 1, 1), PickedRows(source, index, standardizer)]
    before = source.clone()
    code = CompiledFunction(lambda w, x: (x + w,)).find_code(given)
    assert code is not None
    standardized = (source - standardizer.mean) / standardizer.scale
    assert torch.equal(code(given)[0], standardized[index] + given[0])
    assert torch.equal(given[1].pick(), standardized[index])
    assert torch.equal(given[1][1], standardized[index[1]])
    assert torch.equal(source, before)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 6, 1), (6, 1, 6), (1, 1, 6), (6, 1, 1)])
def test_products_of_matrices_with_an_axis_of_one(sizes):
    m, k, n = sizes
    assert_equal(differentiated(squared_product), draw(3, m, k), draw(3, k, n))


@pytest.mark.parametrize("classes", [1, 3, 130])
def test_the_loss_of_labels_is_torch_s(classes):
    labels = torch.arange(4 * 70).reshape(4, 70) % classes

    def both(scores, y):
        own = scores.detach().requires_grad_()
        value = F.cross_entropy(own, y, reduction="none")
        return value.detach(), *torch.autograd.grad(value.sum(), own)

    assert_equal(both, draw(4, classes, 70), labels)


def test_a_label_beyond_the_classes_has_no_loss_and_moves_nothing():
    def both(scores, y):
        own = scores.detach().requires_grad_()
        value = F.cross_entropy(own, y, reduction="none")
        return value.detach(), *torch.autograd.grad(value.sum(), own)

    y = torch.tensor([[0, 2, -100], [1, 1, 0]])
    code = CompiledFunction(both).find_code([draw(2, 3, 3), y])
    known = code([draw(2, 3, 3), y])
    y[0, 1] = 3
    loss, slope = code([draw(2, 3, 3), y])
    assert loss.isnan().nonzero().tolist() == [[0, 1]] and loss[0, 2] == 0
    assert torch.equal(slope[1], known[1][1]) and torch.equal(slope[0, :, 0], known[1][0, :, 0])


def test_the_largest_is_the_first_of_them_and_what_is_no_number_is_larger():
    x = torch.tensor([[[1.0, 3, 3, 2], [torch.nan, 5, torch.nan, 9], [0, 0, 0, 0]]])
    for scores in (x, x.mT.contiguous().mT, x.expand(4, 3, 4)):
        assert_equal(lambda x: (x.max(2).indices, x.max(2).values, x.relu()), scores)


def test_an_argument_is_changed_in_place():
    def move(x, seen):
        seen.mul_(0.9).add_(x.mean(1), alpha=0.1)
        return (x + seen[:, None],)

    x, seen = draw(3, 5, 4), draw(3, 4)
    code = CompiledFunction(move).find_code([x, seen])
    theirs = seen.clone()
    for _ in range(2):
        ours = code([x, seen])
        expected = move(x, theirs)
        torch.testing.assert_close(seen, theirs)
        torch.testing.assert_close(ours, expected)


def test_what_a_part_holds_is_read_where_it_is():
    weight = draw(6)
    assert_equal(lambda x: (x * weight,), draw(3, 5, 6))


def test_a_member_is_the_same_in_any_company():
    x, w = draw(5, 21, 13), draw(5, 13, 3)
    step = differentiated(lambda x, w: F.gelu(torch.bmm(x, w)))
    code = CompiledFunction(step).find_code([x, w])
    whole = code([x, w])
    for rows in ([0], [4, 2], [1, 2, 3]):
        some = code([x[rows], w[rows]])
        assert all(torch.equal(part, every[rows]) for part, every in zip(some, whole, strict=True))


def test_results_are_written_to_where_they_are_asked_for():
    flat = torch.empty(3, 21)
    places = [None, flat[:, :6].view(3, 2, 3), flat[:, 6:].view(3, 3, 5)]
    function = differentiated(squared_product)
    code, ours, theirs = compile_for(function, draw(3, 2, 3), draw(3, 3, 5))
    given = code([draw(3, 2, 3), draw(3, 3, 5)], places)
    assert all(mine is place for mine, place in zip(given[1:], places[1:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given, ours, strict=True))
    torch.testing.assert_close(given, theirs)


class _Squared(nn.Module):
    def forward(self, x):
        return torch.bmm(x, x)


class _Listed(nn.Module):
    def forward(self, x):
        return (x,)


UNKNOWN = {
    "members are added up": lambda x: (x - x.mean(0),),
    "members are put side by side": lambda x: (x.reshape(-1, x.shape[-1]),),
    "an operation that is not written": lambda x: (x.sort().values,),
    "another type": lambda x: (x.bfloat16(),),
    "numbers that are looked at": lambda x: (x * x.sum().item(),),
    "a result that is an argument": lambda x: (x,),
    "a division of whole numbers": lambda x: ((x > 0).long() / (x < 9).long(),),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_left_to_torch(name):
    assert CompiledFunction(UNKNOWN[name]).find_code([draw(3, 4)]) is None


def test_without_a_compiler_all_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(machine_code, "find_compiler", lambda: None)
    assert CompiledFunction(lambda x: (x + 1,)).find_code([draw(3, 4)]) is None


def test_a_compiler_that_fails_is_one_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine_code, "find_compiler", lambda: "/bin/false")
    assert CompiledFunction(lambda x: (x + 3,)).find_code([draw(3, 4)]) is None
    assert not list(tmp_path.rglob("*.so"))


def test_what_was_compiled_before_is_not_compiled_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    add_two = CompiledFunction(lambda x: (x + 2,)).find_code([draw(3, 4)])
    (library,) = tmp_path.rglob("*.so")

    def refuse(*_args):
        raise AssertionError

    monkeypatch.setattr(machine_code, "compile_source", refuse)
    again = CompiledFunction(lambda x: (x + 2,)).find_code([draw(9, 4)])
    assert torch.equal(again([draw(9, 4)])[0], draw(9, 4) + 2)
    assert torch.equal(add_two([draw(3, 4)])[0], draw(3, 4) + 2)
    assert [library] == list(tmp_path.rglob("*.so"))


def test_a_layer_that_repeats_itself_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sources = []
    monkeypatch.setattr(
        "truerisk.engine.stacked.member_code.compiled_function.load_function", sources.append
    )
    for times in (2, 40):
        layers = nn.Sequential(*(_Squared() for _ in range(times)), _Listed())
        CompiledFunction(layers).find_code([draw(3, 4, 4)])
    functions = [source.count("static __attribute__((noinline))") for source in sources]
    assert functions == [1, 1]
