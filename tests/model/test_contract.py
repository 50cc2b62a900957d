"""What every model promises, over every option and every shape of data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from truerisk.assemble import build_with
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.core.mixed_precision import compute_in_half
from truerisk.model import Function

torch.set_num_threads(1)
CONF = Path(__file__).parents[2] / "conf" / "model"
SHAPES = {
    "vector": (7,),
    "signal": (1, 40),
    "channels": (3, 20),
    "grid": (8, 6),
    "image": (1, 8, 8),
    "colour": (3, 9, 8),
}
SEQUENTIAL = {"rnn", "lstm", "gru", "transformer"}
ANY = {"linear", "polynomial", "mlp", "mlp_residual"} | SEQUENTIAL
RESIDUAL = {"resnet", "resnet18", "resnet20", "wide_resnet"}
SMALL = {
    "resnet18": ["model.width=8"],
    "wide_resnet": ["model.depth=10", "model.widen=1"],
    "vit": ["model.width=24", "model.depth=2"],
}
FITTING = {
    "vector": ANY,
    "signal": ANY | {"cnn1d"} | RESIDUAL,
    "channels": ANY | {"cnn1d"} | RESIDUAL,
    "grid": ANY | {"cnn1d", "cnn"} | RESIDUAL,
    "image": ANY | {"cnn", "vit"} | RESIDUAL,
    "colour": ANY | {"cnn", "vit"} | RESIDUAL,
}


def reads_samples(path):
    target = OmegaConf.load(path).get("_target_", "torch.nn.Module")  # or an option's it builds on
    return not issubclass(get_object(target), Function)


EVERY = sorted(path.stem for path in CONF.glob("*.yaml"))
# gpt reads tokens: tests/model/test_gpt.py
OPTIONS = sorted(p.stem for p in CONF.glob("*.yaml") if reads_samples(p) and p.stem != "gpt")
PAIRS = [(option, shape) for shape in SHAPES for option in OPTIONS]
# a signal of three channels may be an image of three rows, too small to be halved twice, and sides
# of 9 or 6 hold no patches of 4
TOO_SMALL = {("cnn", "channels"), *(("vit", shape) for shape in ("channels", "grid", "colour"))}
FIT = [pair for pair in PAIRS if pair[0] in FITTING[pair[1]] and pair not in TOO_SMALL]
MISFIT = sorted(set(PAIRS) - set(FIT) - TOO_SMALL)
WITH_NORMALIZATION = [
    (option, normalization)
    for option in ("mlp", "cnn1d", "cnn", "resnet18", "resnet", "wide_resnet")
    for normalization in ("none", "batch", "layer", "group")
]


@cache
def config(option):
    return compose([f"model={option}", *SMALL.get(option, [])]).model


def build(option, shape, seed=0, **numbers):
    torch.manual_seed(seed)
    return build_with(config(option), input_shape=shape, output_size=4, **numbers)


def samples(shape, n=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *shape, generator=generator)
    return x, torch.arange(n) % 4


def natural(option):
    return SHAPES["image"] if option in ("cnn", "vit") else SHAPES["signal"]


def parameters(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def buffers(model):
    return {name: b.detach() for name, b in model.named_buffers()}


def risk(model):
    return lambda params, x, y: cross_entropy(functional_call(model, params, (x,)), y)


@pytest.mark.parametrize("option,shape", FIT)
def test_outputs_have_the_shape_the_loss_expects(option, shape):
    x, _ = samples(SHAPES[shape])
    assert build(option, SHAPES[shape])(x).shape == (5, 4)


@pytest.mark.parametrize("option,shape", MISFIT)
def test_a_misfit_is_refused_and_what_fits_is_named(option, shape):
    with pytest.raises(ConfigError) as raised:
        build(option, SHAPES[shape])
    error = raised.value
    named = set(str(error).split("use model=")[1].replace(" or ", ", ").split(", "))
    assert named == FITTING[shape] - {"mlp_residual", "polynomial", "resnet18", "resnet20"}
    assert f"model={option.rstrip('0123456789')}" in str(error) and str(SHAPES[shape]) in str(error)


@pytest.mark.parametrize("option", OPTIONS)
def test_samples_are_independent_in_eval_mode(option):
    model = build(option, natural(option)).eval()
    x, _ = samples(natural(option))
    torch.testing.assert_close(model(x[2:3]), model(x)[2:3])


@pytest.mark.parametrize("option,normalization", WITH_NORMALIZATION)
def test_the_gradient_reaches_every_parameter(option, normalization):
    # smooth activations: a relu may be off for all five samples
    model = build(option, natural(option), activation="softplus", normalization=normalization)
    check_gradients(model.double(), natural(option))


@pytest.mark.parametrize("option", ["linear", "rnn", "lstm", "gru", "transformer", "vit"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_reaches_every_parameter_of_the_others(option, bias):
    check_gradients(build(option, natural(option), bias=bias).double(), natural(option))


def check_gradients(model, shape):
    x, y = samples(shape)
    cross_entropy(model(x.double()), y).backward()
    small = {n: float(p.grad.abs().max()) for n, p in model.named_parameters()}
    assert min(small.values()) > 1e-9, small


@pytest.mark.parametrize("option", OPTIONS)
def test_per_sample_gradients_average_to_the_batch_gradient(option):
    model = build(option, natural(option)).double().eval()
    x, y = samples(natural(option))
    x, params = x.double(), parameters(model)
    each = vmap(grad(risk(model)), (None, 0, 0))(params, x.unsqueeze(1), y.unsqueeze(1))
    torch.testing.assert_close({k: g.mean(0) for k, g in each.items()}, gradient(model, x, y))


def gradient(model, x, y):
    """The batch gradient by plain backward."""
    model.zero_grad()
    cross_entropy(model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("option", OPTIONS)
def test_stacked_members_equal_separate_models(option):
    models = [build(option, natural(option), seed).double() for seed in (1, 2)]
    x, y = samples(natural(option))
    x = x.double()
    stack = {k: torch.stack([parameters(m)[k] for m in models]) for k in parameters(models[0])}
    extra = {k: torch.stack([buffers(m)[k] for m in models]) for k in buffers(models[0])}

    def member(params, state):
        return cross_entropy(functional_call(models[0], (params, state), (x,)), y)

    both = vmap(grad(member))(stack, extra)
    for i, model in enumerate(models):
        torch.testing.assert_close({k: g[i] for k, g in both.items()}, gradient(model, x, y))
        torch.testing.assert_close({k: b[i] for k, b in extra.items()}, buffers(model))


@pytest.mark.parametrize("option", OPTIONS)
def test_the_gradient_can_be_differentiated_again(option):
    # in a step of twenty layers some relu passes its kink, which no difference sees
    smooth = {"activation": "softplus"} if option in RESIDUAL - {"resnet"} else {}
    model = build(option, natural(option), **smooth).double()
    x, y = samples(natural(option))
    params, f = parameters(model), risk(model.eval())
    torch.manual_seed(3)
    v = {k: torch.randn_like(p) for k, p in params.items()}

    def slope(p):
        g = grad(f)(p, x.double(), y)
        return sum((g[k] * v[k]).sum() for k in v)

    def at(t):
        return slope({k: p + t * v[k] for k, p in params.items()})

    curvature = sum((h * v[k]).sum() for k, h in grad(slope)(params).items())
    difference = (at(1e-6) - at(-1e-6)) / 2e-6
    torch.testing.assert_close(curvature, difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS)
def test_double_precision_and_bfloat16_agree_with_single(option):
    model = build(option, natural(option)).eval()
    x, _ = samples(natural(option))
    single = model(x)
    with compute_in_half("cpu", torch.bfloat16):
        half = model(x)
    torch.testing.assert_close(half.float(), single, rtol=0.05, atol=0.05)
    double = model.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_input_is_left_alone(option):
    x, _ = samples(natural(option))
    before = x.clone()
    build(option, natural(option))(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("option", ["mlp", "cnn1d", "cnn", "resnet", "transformer"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_every_activation_is_a_module_of_its_own(option, activation):
    model = build(option, natural(option), activation=activation)
    kind = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "gelu": torch.nn.GELU}[activation]
    calls = []
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda m, *_: calls.append(id(m)))
    model(samples(natural(option))[0])
    expected = {"mlp": 2, "cnn1d": 3, "cnn": 2, "resnet": 7, "transformer": 2}[option]
    assert len(calls) == len(set(calls)) == expected


def test_lists_in_the_config():
    mlp = build("mlp", (7,), widths=[5, 3])
    assert [block.linear.out_features for block in mlp.hidden] == [5, 3]
    cnn = build("cnn1d", (1, 40), kernels=[7, 5])
    assert [block.conv.kernel_size for block in cnn.convolutions] == [(7,), (5,)]


@pytest.mark.parametrize("option", EVERY)
def test_the_first_line_of_an_option_says_what_it_is(option):
    first, *rest = (CONF / f"{option}.yaml").read_text().splitlines()
    assert first.startswith("# ") and len(first) <= 92
    assert all("#" in line for line in rest if not line.startswith("_target_"))
