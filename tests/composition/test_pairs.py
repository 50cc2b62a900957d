"""Every option beside every option of every other group.

An option that fits only some of the others says so in ``CLASHES``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from itertools import combinations, permutations, product
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from truerisk.assemble import build
from truerisk.config.compose import compose
from truerisk.config.parts import conf_dir, list_options
from truerisk.core.errors import ConfigError

STEP = {
    "batch_size": {"8": ["data.batch_size=8"], "full": ["data.batch_size=full"]},
    "in_memory": {"auto": [], "false": ["data.in_memory=false"]},
    "normalization": {
        "the model's": [],
        **{n: [f"model.normalization={n}"] for n in ("none", "batch", "layer", "group")},
    },
    "accumulate": {n: [f"step.accumulate={n}"] for n in "12"},
    "clip": {"none": [], "norm": ["step.clip.norm=1"], "value": ["step.clip.value=0.1"]},
    "precision": {n: [f"trainer.precision={n}"] for n in ("32-true", "64-true", "bf16-mixed")},
    "compile": {"false": [], "true": ["compile=true"]},
}
"""Choices outside the groups, and their overrides."""

PICKED = ("data", "model", "loss", "initializer", "optimizer", "param_groups", "scheduler")
SWITCHES = {
    name: group
    for group in ("regularizer", "diagnostics")
    for name in list_options(group, (conf_dir(),))
}
"""Options that are on or off."""

TAKES = {"cnn": {3}, "cnn1d": {2}, "resnet": {2, 3}, "wide_resnet": {2, 3}}
"""Dimensions of a sample that a model reads; the others read all."""

REGRESSION = {"mse", "mae", "huber", "poisson", "quantile"}
RECURRENT = {"rnn", "lstm", "gru"}
ATTENTIVE = {"transformer"}
NORMALIZED = {
    "mlp": {"none", "batch", "layer", "group"},
    "mlp_residual": {"none", "batch", "layer", "group"},
    "cnn1d": {"none", "batch", "layer", "group"},
    "cnn": {"none", "batch", "layer", "group"},
    "resnet": {"none", "batch", "layer", "group"},
    "wide_resnet": {"none", "batch", "layer", "group"},
    "transformer": {"none", "layer"},
}
ALIKE = {
    "data": {"cifar10", "cifar100", "mnist", "fashion_mnist", "rare_classes"},
    "model": {"resnet18", "resnet20", "vit"},
}
"""Options that are to the other parts what another one is: images of classes as digits are, rare
classes as gaussians are, the class of resnet, the layers of transformer behind a convolution."""
OF_RECURRENT = {"identity_rnn", "orthogonal_rnn"}
PLAIN = "the model's"

FULL_BATCH = {"gd", "gd_backtracking", "gd_exact", "gd_wolfe", "lbfgs_backtracking"}
SEARCHES = FULL_BATCH - {"gd"} | {"lbfgs", "sgd_armijo", "hill_climbing"}
CURVATURE = {"newton", "newton_cg", "gauss_newton", "kfac"}
DIAGONAL = {"adahessian", "sophia"}
ONE_GROUP = SEARCHES | CURVATURE


class Clash(NamedTuple):
    """When two choices cannot work together, and what the refusal says of it."""

    when: Callable[[Any, Any], bool]
    why: str


def both(x, y):
    return x == y == "on"


CLASHES = {
    ("data", "loss"): Clash(
        lambda data, loss: (
            (
                (data.task == "regression") != (loss in REGRESSION)
                and not (data.either and loss in REGRESSION)
            )
            or (loss == "ordinal" and not data.ordered)
            or (loss == "poisson" and not data.counts)
        ),
        "loss=.* is for (classification( or (multilabel|next_token))?|regression), but"
        "|loss=ordinal needs classes in their order"
        "|loss=poisson is for counts",
    ),
    ("data", "model"): Clash(
        lambda data, model: (
            data.dims not in TAKES.get(model, {1, 2, 3}) and not (data.grey and model == "cnn")
        ),
        "use model=|halves images of 2 x 12 to nothing",
    ),
    ("data", "cutmix"): Clash(
        lambda data, on: on == "on" and data.dims == 1, "cutmix needs signals .* or images"
    ),
    ("data", "augment"): Clash(
        lambda data, on: on == "on" and data.dims != 3, "augment moves the pixels of images"
    ),
    ("model", "augment"): Clash(
        lambda model, on: on == "on" and 3 not in TAKES.get(model, {3}),
        "augment moves the pixels of images|use model=",
    ),
    ("data", "entropy"): Clash(
        lambda data, on: on == "on" and data.task == "regression", "entropy needs class prob"
    ),
    ("loss", "entropy"): Clash(
        lambda loss, on: on == "on" and loss in REGRESSION | {"ordinal", "squared"},
        "entropy needs class prob|entropy reads a score a class",
    ),
    ("model", "normalization"): Clash(
        lambda model, norm: norm not in {PLAIN, *NORMALIZED.get(model, ())}, "normalization"
    ),
    ("model", "initializer"): Clash(
        lambda model, name: name in OF_RECURRENT and model not in RECURRENT, "recurrent"
    ),
    ("initializer", "normalization"): Clash(
        lambda name, norm: name in OF_RECURRENT and norm != PLAIN, "recurrent|normalization"
    ),
    ("initializer", "spectral_norm"): Clash(
        lambda name, on: name == "zeros" and on == "on", "largest singular value, and one is zero"
    ),
    ("optimizer", "batch_size"): Clash(
        lambda name, size: name in FULL_BATCH and size != "full", "set data.batch_size=full"
    ),
    ("optimizer", "clip"): Clash(
        lambda name, clip: name in ONE_GROUP | DIAGONAL and clip != "none", "leave out step.clip"
    ),
    ("optimizer", "param_groups"): Clash(
        lambda name, rules: name in ONE_GROUP and rules != "all",
        "this optimizer does not have|takes only one",
    ),
    ("optimizer", "precision"): Clash(
        lambda name, digits: name in CURVATURE and "mixed" in digits, "use 32-true or 64-true"
    ),
    ("optimizer", "loss"): Clash(
        lambda name, loss: name in DIAGONAL and loss in {"hinge", "quantile"}, "piecewise linear"
    ),
    ("optimizer", "compile"): Clash(
        lambda name, on: name in CURVATURE | DIAGONAL and on == "true", "set compile=false"
    ),
    ("optimizer", "max_norm"): Clash(
        lambda name, on: name in ONE_GROUP and on == "on", "moves the weights after each step"
    ),
    ("input_gradient", "compile"): Clash(
        lambda on, compiled: on == "on" and compiled == "true", "set compile=false"
    ),
    ("optimizer", "gradient_flow"): Clash(
        lambda name, on: name in {*CURVATURE, "hill_climbing"} and on == "on", "leaves no gradient"
    ),
    ("optimizer", "lr_range"): Clash(
        lambda name, on: name in SEARCHES | CURVATURE | DIAGONAL | {"sam"} and on == "on",
        "gradient of a mini-batch and nothing else",
    ),
    ("model", "recurrence"): Clash(
        lambda model, on: model not in RECURRENT and on == "on", "no recurrent layer"
    ),
    ("model", "attention"): Clash(
        lambda model, on: model not in ATTENTIVE and on == "on", "no layer with attention"
    ),
    ("initializer", "attention"): Clash(
        lambda name, on: name in OF_RECURRENT and on == "on", "recurrent|no layer with attention"
    ),
    ("recurrence", "attention"): Clash(both, "no recurrent layer|no layer with attention"),
    ("attention", "normalization"): Clash(
        lambda on, norm: on == "on" and norm not in {PLAIN, *NORMALIZED["transformer"]},
        "normalization|no layer with attention",
    ),
    ("recurrence", "normalization"): Clash(
        lambda on, norm: on == "on" and norm != PLAIN, "'normalization'|no recurrent layer"
    ),
    ("model", "activations"): Clash(
        lambda model, on: model in {"linear", "polynomial", "lstm", "gru"} and on == "on",
        "an activation",
    ),
    ("mixup", "cutmix"): Clash(both, "mixed only once"),
    ("ema", "swa"): Clash(both, "only one average can be measured"),
}
"""Pairs that cannot work, and are refused. A data option stands here for its task and shape."""


class Kind(NamedTuple):
    """What of a data option decides what it goes with."""

    task: str
    dims: int
    grey: bool
    ordered: bool
    counts: bool
    either: bool


@pytest.fixture(scope="module")
def space(files, listed, chosen):
    """The choices, and which two of them clash."""
    factors = {group: listed(group) for group in PICKED} | STEP
    for group, others in ALIKE.items():
        factors[group] = [name for name in factors[group] if name not in others]
    factors |= {name: ["off", "on"] for name in SWITCHES}
    kinds = {("data", name): kind(chosen("data", name), files) for name in factors["data"]}

    def clash(a, b):
        for (f, x), (g, y) in ((a, b), (b, a)):
            if (f, g) in CLASHES:
                return CLASHES[f, g].when(kinds.get((f, x), x), kinds.get((g, y), y))
        return False

    return {f: [(f, value) for value in values] for f, values in factors.items()}, clash


def kind(picked, files):
    cfg = compose([text.format(files=files) for text in picked])
    data = build(cfg.data, seed=0)
    data.prepare()
    ordered = all(name.lstrip("-").isdigit() for name in data.info.class_names or ())
    counts = bool((data.train.y >= 0).all())
    # labels that are numbers are targets of a regression where the loss is one for that
    either = ordered and cfg.data.source.get("task") == "auto"
    shape = data.info.input_shape
    # channels of a signal that are enough for an image's rows
    grey = len(shape) == 2 and min(shape) >= 4
    return Kind(data.info.task, len(shape), grey, ordered, counts, either)


def covering(factors, clash):
    """Rows of one choice a factor in which every two choices that do not clash meet.

    Greedy, as AETG (Cohen et al. 1997) without its random draws: a row begins with a pair that is
    missing, then takes from each factor the choice that meets most of those still to be met.
    """
    pairs = [pair for f, g in combinations(factors.values(), 2) for pair in product(f, g)]
    clashing = {frozenset(pair) for pair in pairs if clash(*pair)}
    missing = {choice: {} for choices in factors.values() for choice in choices}
    for a, b in pairs:
        if frozenset((a, b)) not in clashing:
            missing[a][b] = missing[b][a] = None
    while any(missing.values()):
        first = max(missing, key=lambda choice: len(missing[choice]))
        row = dict([first, next(iter(missing[first]))])
        for factor, choices in factors.items():
            if factor not in row:
                met = list(row.items())
                free = [c for c in choices if not any(frozenset((c, m)) in clashing for m in met)]
                assert free, f"no {factor} goes with {row}: declare what clashes"
                row |= [max(free, key=lambda c: sum(m in missing[c] for m in met))]
        for a, b in permutations(row.items(), 2):
            missing[a].pop(b, None)
        yield row


def overrides(row):
    """A row's choices outside the groups, as on the command line."""
    return [text for name in STEP if name in row for text in STEP[name][row[name]]]


@pytest.fixture(scope="module")
def configuration(files, chosen, sizes):
    """A row's configuration, from groups composed once each: that takes longer than a run."""
    first = compose(sizes)

    @cache
    def node(group, name, *more):
        line = [text.format(files=files) for text in chosen(group, name)]
        return compose([*line, *more])[group]

    def build(row, checked=False):
        """``checked``: an option that has no such key is refused, which costs a composition."""
        cfg, outside = copy.deepcopy(first), overrides(row)
        OmegaConf.set_struct(cfg, False)
        for group in PICKED:
            given = [*sizes, *(outside if checked else [])]
            more = [text for text in given if text.startswith(f"{group}.")]
            cfg[group] = copy.deepcopy(node(group, row[group], *more))
        for group in set(SWITCHES.values()):
            on = [name for name in SWITCHES if SWITCHES[name] == group and row[name] == "on"]
            cfg[group] = {name: copy.deepcopy(node(group, name)[name]) for name in on}
        return OmegaConf.merge(cfg, OmegaConf.from_dotlist(outside))

    return build


@pytest.fixture(scope="module")
def rows(space):
    """All but torch.compile, which takes a C++ compiler half a minute a row."""
    factors, clash = space
    return list(covering(factors | {"compile": [("compile", "false")]}, clash))


PARTS = 12


@pytest.mark.parametrize("part", range(PARTS))
def test_every_two_options_beside_each_other(part, rows, configuration, train, complete):
    """Each row ends with all its risks: none diverges, is refused, or breaks off."""
    failed = {}
    for row in rows[part::PARTS]:
        try:
            complete(train(configuration(row)))
        except Exception as error:
            failed[" ".join(f"{f}={x}" for f, x in row.items() if x != "off")] = repr(error)
    assert not failed, "\n".join(f"{row}\n    {why}" for row, why in failed.items())


DEFAULTS = {"data": "mnist1d", "model": "mlp", "loss": "cross_entropy", "optimizer": "adam"}


def simplest(a, b, factors, clash):
    """A row around a pair that clashes, in which as little else does as can be."""
    row = dict([a, b])
    for factor, choices in factors.items():
        if factor not in row:
            free = [c for c in choices if not any(clash(c, met) for met in row.items())]
            free = free or [c for c in choices if not clash(c, a)]
            plain = (factor, DEFAULTS.get(factor, "off"))
            row |= [plain if plain in free else free[0]]
    return row


@pytest.mark.parametrize("pair", CLASHES, ids=" and ".join)
def test_what_cannot_work_together_is_refused_with_the_reason(pair, space, configuration, train):
    factors, clash = space
    clashing = [both for both in product(*(factors[f] for f in pair)) if clash(*both)]
    assert clashing
    for a, b in clashing:
        with pytest.raises(ConfigError, match=CLASHES[pair].why):
            train(configuration(simplest(a, b, factors, clash), checked=True))
