"""μP: by Table 3 of Yang et al. (2022), by the sizes of what layers do, and where it is refused."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import truerisk
from truerisk.assemble import assemble
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.parametrization import compare_shapes

MUP = ["parametrization=mup", "parametrization.base.width=16"]
IRIS = ["data=iris", "model.depth=2", "trainer.max_epochs=2"]
TEXT = ["data=text", "model=gpt", "model.depth=1", "model.tied=false", "data.source.context=16"]
TEXT += ["data.num_train=30", "data.val=5", "data.test=5"]


def build(*overrides):
    """A recipe's parts, and the groups of its optimizer."""
    recipe = assemble(compose(list(overrides)))
    return recipe.model, recipe.optimizer(recipe.model)


def measure_rms(parameter):
    return parameter.detach().square().mean().sqrt().item()


def list_rates(optimizer):
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


def test_at_the_base_width_it_is_the_standard_one(tmp_path):
    words = [*IRIS, "model.width=16", "optimizer=adamw"]
    plain = truerisk.train(words, folder=tmp_path / "plain")
    same = truerisk.train([*words, *MUP], folder=tmp_path / "same")
    assert same.summary["risk/val"] == plain.summary["risk/val"]
    for one, other in zip(same.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "initializer", ["default", "kaiming_normal", "xavier_normal", "lecun_normal"]
)
def test_weights_begin_as_large_as_the_table_says(initializer):
    words = [*IRIS, f"initializer={initializer}"]
    # many draws of the narrow one, for few weights tell little of their spread
    narrow = [build(*words, "model.width=16", f"seed={seed}")[0] for seed in range(20)]
    wide, _ = build(*words, *MUP, "model.width=256")
    factors = {"hidden.0": 1, "hidden.1": 1 / math.sqrt(16), "output": 1 / 16}
    before = {
        name: np.sqrt(np.mean([measure_rms(dict(m.named_parameters())[name]) ** 2 for m in narrow]))
        for name, _ in wide.named_parameters()
    }
    for name, parameter in wide.named_parameters():
        factor = 1 if name.endswith("bias") else next(factors[k] for k in factors if k in name)
        assert measure_rms(parameter) == pytest.approx(before[name] * factor, rel=0.15), name


RATES = {
    "sgd": ((16, 16), (1, 16), (1 / 16, 1)),
    "adam": ((1, 1), (1 / 16, 1), (1 / 16, 1)),
    "rmsprop": ((1, 1), (1 / 16, 1), (1 / 16, 1)),
}
"""Of weight and bias, in the input, hidden and output layer, 16 times as wide: Table 3."""


@pytest.mark.parametrize("optimizer", RATES)
def test_rates_are_those_of_the_table(optimizer):
    words = [*IRIS, *MUP, f"optimizer={optimizer}", "optimizer.lr=0.5", "model.width=256"]
    model, built = build(*words)
    rates = list_rates(built)
    names = [name for name, _ in model.named_parameters()]
    wanted = [0.5 * factor for layer in RATES[optimizer] for factor in layer]
    assert [rates[name] for name in names] == pytest.approx(wanted, rel=1e-12)


def test_a_rules_own_rate_is_scaled_and_decay_keeps_its_share():
    rule = "param_groups.rules=[{name: output, lr: 0.2, weight_decay: 0.3}]"
    words = [*IRIS, *MUP, "optimizer=adamw", "optimizer.weight_decay=0.1", "model.width=256", rule]
    _, optimizer = build(*words)
    groups = {
        name: (group["lr"] * group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert groups["output.weight"] == pytest.approx((0.2 * 0.3, 0.2 / 16))
    assert groups["output.bias"] == pytest.approx((0.2 * 0.3, 0.2))
    assert groups["hidden.1.linear.weight"] == pytest.approx((0.001 * 0.1, 0.001 / 16))


def adjust_original(rows, columns):
    return math.sqrt(max(1, rows / columns))


def adjust_to_adamw(rows, columns):
    return 0.2 * math.sqrt(max(rows, columns))


@pytest.mark.parametrize(
    ("name", "own"), [("original", adjust_original), ("match_rms_adamw", adjust_to_adamw)]
)
def test_a_step_of_muon_has_the_spectral_norm_of_a_wider_layer(name, own):
    # √(outputs / inputs) times what it has at the base width (Yang, Simon & Bernstein 2023)
    words = [*IRIS, "optimizer=muon", f"optimizer.adjust_lr_fn={name}"]
    steps = {}
    for width, more in ((16, []), (256, MUP)):
        model, optimizer = build(*words, *more, f"model.width={width}")
        rates = list_rates(optimizer)
        matrices = [(n, p) for n, p in model.named_parameters() if p.ndim == 2]
        steps[width] = [rates[n] * own(*p.shape) for n, p in matrices]
        biases = [rates[n] for n, p in model.named_parameters() if p.ndim == 1]
        assert biases == [0.001] * 3
    growth = [wide / narrow for wide, narrow in zip(steps[256], steps[16], strict=True)]
    assert growth == pytest.approx([4.0, 1.0, 1 / 4], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "own"), [("original", adjust_original), ("match_rms_adamw", adjust_to_adamw)]
)
def test_rows_of_an_embedding_move_as_far_by_muon_at_every_width(name, own):
    words = [*TEXT, "optimizer=muon", f"optimizer.adjust_lr_fn={name}"]
    moves = []
    for width in (16, 64, 256):  # below and above the number of rows
        wide = [f"model.width={width}", f"model.heads={width // 16}"]
        model, optimizer = build(*words, *MUP, *wide)
        rows, columns = model.embedding.weight.shape
        entry = math.sqrt(min(rows, columns) / (rows * columns))  # root mean square of U Vᵀ
        moves.append(list_rates(optimizer)["embedding.weight"] * own(rows, columns) * entry)
    assert moves == pytest.approx([moves[0]] * len(moves), rel=1e-12)


TIED = [*TEXT, "model.tied=true", *MUP, "parametrization.base.heads=1"]
WIDE = ["model.width=64", "model.heads=4"]


@pytest.mark.parametrize(("optimizer", "factor"), [("adamw", 1), ("sgd", 4), ("muon", 2)])
def test_a_shared_matrix_begins_and_moves_as_an_embedding(optimizer, factor):
    # input weights of Table 8 of Yang et al. (2022), whose readout divides by the width
    words = [*TIED, f"optimizer={optimizer}", "optimizer.lr=0.5"]
    narrow, before = build(*words, "model.heads=1", "model.width=16")
    wide, after = build(*words, *WIDE)
    rates = [list_rates(built)["embedding.weight"] for built in (before, after)]
    assert rates == [0.5, 0.5 * factor]
    sizes = [measure_rms(model.embedding.weight) for model in (narrow, wide)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    h = torch.randn(3, 64)
    torch.testing.assert_close(wide.output(h), h @ wide.embedding.weight.T / 4)
    h = torch.randn(3, 16)
    assert torch.equal(narrow.output(h), h @ narrow.embedding.weight.T)


def test_a_run_read_back_divides_as_the_one_that_was_trained(tmp_path):
    words = [*TIED, *WIDE, "trainer.max_epochs=1", "optimizer=adamw", "figures=false"]
    run = truerisk.train(words, folder=tmp_path / "run")
    trained = assemble(compose(words)).model
    trained.load_state_dict(run.network.state_dict())
    x = torch.arange(16)[None]
    assert torch.equal(truerisk.load_run(tmp_path / "run").network(x), trained.eval()(x))


def test_a_table_that_grows_in_both_sizes_is_no_readout():
    class Tied(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.embedding, self.output = nn.Embedding(width, width), nn.Linear(width, width)
            self.output.weight = self.embedding.weight

    with pytest.raises(ConfigError, match=r"embedding.weight is that of two layers"):
        compare_shapes(Tied(8), Tied(4))


def track_sizes(model, x):
    """What each layer of weights puts out, by its name."""
    found = {}
    hooks = [
        module.register_forward_hook(lambda m, i, out, name=name: found.update({name: out}))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def find_powers(words, widths, counts=(1, 2, 10), seeds=2, samples=None):
    """The power of the width by which each layer's change grows, by its name and the steps."""
    moved = {}
    for width, seed in itertools.product(widths, range(seeds)):
        wide = [f"model.width={width}", f"seed={seed}"]
        if "model=gpt" in words:
            wide.append(f"model.heads={width // 16}")
        recipe = assemble(compose([*words, *wide]))
        model, optimizer = recipe.model, recipe.optimizer(recipe.model)
        split = recipe.data.train
        x, y = split.x[:samples], split.y[:samples]
        if x.is_floating_point():
            x = x.float()
        before = track_sizes(model, x)
        for step in range(1, max(counts) + 1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
            optimizer.step()
            if step in counts:
                for name, out in track_sizes(model, x).items():
                    moved.setdefault((name, step), []).append(measure_rms(out - before[name]))
    logs = np.log(np.repeat(widths, seeds))
    return {key: np.polyfit(logs, np.log(sizes), 1)[0] for key, sizes in moved.items()}


TUNED = ["adamw optimizer.lr=0.003", "sgd optimizer.lr=0.1", "muon optimizer.lr=0.02"]


@pytest.mark.parametrize("optimizer", TUNED)
def test_what_layers_do_is_flat_in_the_width(optimizer):
    words = ["data=iris", "model.depth=3", *f"optimizer={optimizer}".split()]
    words += ["data.batch_size=full", "initializer=kaiming_normal"]
    widths = (128, 320, 800)
    if optimizer.startswith("muon"):  # whose products in bfloat16 take a CPU most of the time
        widths = (64, 160, 400)
    flat = find_powers([*words, *MUP], widths)
    assert max(map(abs, flat.values())) < 0.15
    # by the standard one outputs grow, by as much as a power of the width
    steep = find_powers(words, widths, counts=(1,))
    assert max(steep.values()) > 0.4


LARGER = {
    "resnet": [
        "data=digits",
        "data.num_train=60",
        "model=resnet",
        "model.stages=2",
        "model.depth=1",
    ],
    "gpt": [*TEXT, "model.depth=2", "parametrization.base.heads=1"],
    "tied_gpt": [*TEXT, "model.depth=2", "parametrization.base.heads=1", "model.tied=true"],
}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Texts of twenty letters, fewer than any width, whatever Python's own texts are.

    Muon's rate of an embedding knows its shape alone: where a batch has fewer tokens than the width
    and there are more of them than that, rows that are moved at all move by less in wider ones.
    """
    draw, folder = random.Random(0), tmp_path_factory.mktemp("letters")
    for k in range(60):
        words = ("".join(draw.choices("etaoinshrdlucmfwypgb", k=5)) for _ in range(12))
        (folder / f"{k}.txt").write_text(" ".join(words))
    return folder


@pytest.mark.parametrize("optimizer", TUNED)
@pytest.mark.parametrize("model", LARGER)
def test_what_layers_of_larger_models_do_is_flat_in_the_width(letters, model, optimizer):
    words = [*MUP, *LARGER[model], *f"optimizer={optimizer}".split(), "data.batch_size=full"]
    if "data=text" in words:
        words.append(f"data.source.path={letters}")
    flat = find_powers(words, (64, 192), samples=16)
    hidden = [power for (name, _), power in flat.items() if name != "output"]
    assert len(hidden) >= 3 * 5 and max(map(abs, hidden)) < 0.25  # as claimed of MLPs
    # an output's random start is of the size of 1/√width, and part of what the first steps change
    outputs = [flat["output", step] for step in (1, 2, 10)]
    assert min(outputs) > -0.5 and max(outputs) < 0.25 and outputs[-1] > -0.25
    plain = [word for word in words if "parametrization" not in word]
    steep = find_powers(plain, (64, 192), counts=(1,), seeds=1, samples=16)
    assert max(steep.values()) > 0.4


def test_heads_keep_their_size():
    model, _ = build(*TEXT, *MUP, "model.width=64", "model.heads=4", "optimizer=adamw")
    assert model.head_size == 16  # and one head at the base width
    with pytest.raises(ConfigError, match=r"attention have 32 features, and 8 at the base"):
        build(*TEXT, *MUP, "model.width=64", "model.heads=2", "parametrization.base.heads=2")


BASE = "^parametrization.base: no model can be built there: model.heads=2 does not divide"
REFUSED = {
    "optimizer": ([*IRIS, "optimizer=prodigy"], "no rule for the steps of pytorch_optimizer.Prod"),
    "closure": ([*IRIS, "optimizer=sam"], "no rule for the steps of"),
    "decay": ([*IRIS, "optimizer=adam", "optimizer.weight_decay=0.1"], "weight_decay of torch.Ad"),
    "number": (["data=iris", "model=linear"], r"parametrization.base.width: model=linear has no"),
    "zero": ([*IRIS, "parametrization.base.width=0"], "parametrization.base.width must be a whole"),
    "word": ([*IRIS, "parametrization.base.widths=[4,b]"], "parametrization.base.widths must be a"),
    "none": ([*IRIS, "parametrization.base.width=null"], "set parametrization.base.width"),
    "depth": ([*IRIS, "+parametrization.base.depth=1"], "change its widths alone, not its depth"),
    "base": ([*TEXT, "model.width=16", "model.heads=2", "parametrization.base.width=7"], BASE),
    "weight": ([*IRIS, "regularizer=[spectral_norm]"], "does not know the size of .*original"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_rule_is_refused(case):
    words, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build(*MUP, *words)


def test_a_refusal_is_one_line(capsys):
    assert main(["train", *IRIS, *MUP, "optimizer=prodigy"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: parametrization=mup has no rule") and err.count("\n") == 1
