"""Learning-rate sequences against their closed forms."""

from __future__ import annotations

import math
import re
import time
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.scheduler import Constant, InverseSqrt, Plateau, Schedule

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "scheduler").glob("[!_]*.yaml"))
LR = (0.1, 0.03)
N = 60


def optimizer_of(cls=torch.optim.SGD, **numbers):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in LR]
    return cls(groups, **numbers)


@cache
def config_of(name):
    return OmegaConf.to_container(compose([f"scheduler={name}"]).scheduler)


def schedule_of(name, optimizer, horizon=N, **options):
    options = {**config_of(name), **options}
    target, warmup = get_class(options.pop("_target_")), options.pop("warmup")
    return Schedule(target, options, optimizer, horizon, warmup)


def lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def sequence(schedule, steps=N, risks=None):
    """The learning rates that steps 0 … steps use, and what follows the last."""
    rates = [lrs(schedule.optimizer)]
    for t in range(steps):
        schedule.optimizer.step()
        schedule.step()
        if risks is not None:
            schedule.step_epoch(risks[t])
        rates.append(lrs(schedule.optimizer))
    return rates


def one_cycle(t, n, up=0.3, div=25.0, final=1e4):
    end, s = up * n - 1, min(t, n - 1)
    lo, hi, u = (
        (1 / div, 1, s / end) if s <= end else (1, 1 / div / final, (s - end) / (n - 1 - end))
    )
    return hi + (lo - hi) * (1 + math.cos(math.pi * u)) / 2


def cyclic(t, size=5, low=0.1):
    return low + (1 - low) * (1 - abs(t / size % 2 - 1))


FORMS = {
    "constant": ({}, lambda t, n: 1),
    "step": ({"step_size": 0.25}, lambda t, n: 0.1 ** (4 * t // n)),
    "multistep": ({"milestones": [0.5, 45]}, lambda t, n: 0.1 ** ((t >= n // 2) + (t >= 45))),
    "exponential": ({"gamma": 0.9}, lambda t, n: 0.9**t),
    "linear": ({}, lambda t, n: 1 - t / n),
    "polynomial": ({}, lambda t, n: (1 - t / n) ** 2),
    "cosine": ({}, lambda t, n: (1 + math.cos(math.pi * t / n)) / 2),
    "warm_restarts": ({}, lambda t, n: (1 + math.cos(math.pi * (4 * t / n % 1))) / 2),
    "one_cycle": ({}, one_cycle),
    "cyclic": ({"step_size_up": 5}, lambda t, n: cyclic(t)),
    "inverse_sqrt": ({"timescale": 10}, lambda t, n: math.sqrt(10 / (10 + t))),
    "warmup_stable_decay": ({}, lambda t, n: min(1, 5 * (1 - t / n))),
    "plateau": ({}, lambda t, n: 1),
}


def test_every_option_has_a_form():
    assert sorted(FORMS) == OPTIONS


@pytest.mark.parametrize("warmup", [0, 20, 0.25])
@pytest.mark.parametrize("name", OPTIONS)
def test_closed_form(name, warmup):
    """Exactly the horizon: warmup t ↦ (t + 1)/W, and the form over what is left of the run."""
    length = {0: 0, 20: 20, 0.25: 20}[warmup]
    left = 60
    horizon = left + length
    options, form = FORMS[name]
    schedule = schedule_of(name, optimizer_of(lr=1.0), horizon, **options, warmup=warmup)
    got = sequence(schedule, horizon)
    for t, rates in enumerate(got):
        ramp = (t + 1) / length if t < length else 1
        factor = ramp * form(max(0, t - length), left)
        assert rates == pytest.approx([lr * factor for lr in LR], rel=1e-12, abs=1e-16), t


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("horizon", [1, 2, 3, 7, 10, 100])
def test_short_runs(name, horizon):
    """Every option gives a finite, positive rate to every step of runs of any length."""
    rates = sequence(schedule_of(name, optimizer_of(lr=1.0), horizon, warmup=0.1), horizon)
    assert all(math.isfinite(lr) and 0 < lr <= max(LR) for step in rates[:-1] for lr in step)


@pytest.mark.parametrize("name", ["linear", "polynomial", "cosine", "warmup_stable_decay"])
@pytest.mark.parametrize("horizon", [3, 100, 3201])
def test_zero_exactly_after_the_last_step(name, horizon):
    rates = sequence(schedule_of(name, optimizer_of(lr=1.0), horizon, warmup=0.1), horizon)
    assert min(rates[-2]) > 0
    assert rates[-1] == [0.0, 0.0]


@pytest.mark.parametrize(
    "name", ["linear", "polynomial", "cosine", "one_cycle", "warmup_stable_decay"]
)
def test_no_rise_after_the_end(name):
    """A schedule over half the run stays where it ended."""
    options = {"cosine": {"T_max": 0.5}, "one_cycle": {"total_steps": 0.5}}
    schedule = schedule_of(
        name, optimizer_of(lr=1.0), **options.get(name, {"total_iters": 0.5}), warmup=0
    )
    rates = sequence(schedule, N + 10)
    assert rates[30] != rates[20]
    assert all(step == rates[30] for step in rates[30:])


def test_cosine_floor():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = schedule_of("cosine", optimizer, eta_min=0.01, warmup=0)
    assert sequence(schedule)[-1] == [0.01]


def test_shares_are_of_the_run_after_warmup():
    by_share = schedule_of("cosine", optimizer_of(lr=1.0), 100, T_max=0.5, warmup=0.2)
    by_steps = schedule_of("cosine", optimizer_of(lr=1.0), 100, T_max=40, warmup=20)
    assert sequence(by_share, 100) == sequence(by_steps, 100)


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_decay_shapes(shape):
    s = {
        "linear": lambda u: 1 - u,
        "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
        "sqrt": lambda u: 1 - math.sqrt(u),
    }[shape]
    options = {"shape": shape, "decay": 10, "end_factor": 0.2, "warmup": 0}
    rates = sequence(schedule_of("warmup_stable_decay", optimizer_of(lr=1.0), **options))
    expected = [0.1 * (0.2 + 0.8 * s(max(0, t - 50) / 10)) for t in range(N + 1)]
    assert [step[0] for step in rates] == pytest.approx(expected, rel=1e-12)


def test_inverse_sqrt_is_vaswanis_after_its_warmup():
    schedule = schedule_of("inverse_sqrt", optimizer_of(lr=1.0), timescale=10, warmup=10)
    got = [step[0] for step in sequence(schedule)]
    theirs = [min((t + 1) ** -0.5, (t + 1) * 10**-1.5) for t in range(N)]
    assert got[:10] == pytest.approx([0.1 * v / 10**-0.5 for v in theirs[:10]], rel=1e-12)
    steps = range(11, N)
    assert [got[t] for t in steps] == pytest.approx([0.1 * math.sqrt(10 / t) for t in steps])


def test_inverse_sqrt_with_exponent_one_is_robbins_and_monros():
    schedule = schedule_of(
        "inverse_sqrt", optimizer_of(lr=1.0), timescale=10, warmup=0, exponent=1.0
    )
    got = [step[0] for step in sequence(schedule)]
    assert got == pytest.approx([0.1 * 10 / (10 + t) for t in range(len(got))], rel=1e-12)
    with pytest.raises(ConfigError, match=r"scheduler\.exponent must be a number greater than 0"):
        InverseSqrt(optimizer_of(lr=1.0), 10, exponent=0.0)


def test_plateau():
    """Three epochs without improvement are one too many for patience 2."""
    schedule = schedule_of("plateau", optimizer_of(lr=1.0), patience=2, factor=0.5)
    risks = [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    rates = [step[0] for step in sequence(schedule, len(risks), risks)]
    assert rates == [0.1] * 5 + [0.05] * 4 + [0.025]


def test_plateau_waits_for_the_end_of_warmup():
    schedule = schedule_of("plateau", optimizer_of(lr=1.0), patience=0, factor=0.5, warmup=4)
    rates = [step[0] for step in sequence(schedule, 6, [1.0] * 6)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.05, 0.025])


def test_plateau_ignores_steps_and_others_ignore_epochs():
    plateau = schedule_of("plateau", optimizer_of(lr=1.0), patience=0)
    assert sequence(plateau, 20) == [list(LR)] * 21
    cosine = schedule_of("cosine", optimizer_of(lr=1.0))
    assert sequence(cosine, N, [1.0] * N) == sequence(schedule_of("cosine", optimizer_of(lr=1.0)))


def momenta(schedule, key):
    values = []
    for _ in range(N):
        values.append([group[key] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return [v[0][0] if key == "betas" else v[0] for v in values]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("cls", ["SGD", "Adam"])
def test_one_cycle_equals_torchs(cls, strategy):
    """Where torch's own one-cycle applies, rates and momenta are the same."""
    numbers, key = ({"momentum": 0.9}, "momentum") if cls == "SGD" else ({}, "betas")
    make = getattr(torch.optim, cls)
    ours = schedule_of("one_cycle", optimizer_of(make, lr=1.0, **numbers), anneal_strategy=strategy)
    optimizer = optimizer_of(make, lr=1.0, **numbers)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=list(LR), total_steps=N, anneal_strategy=strategy
    )
    assert momenta(ours, key) == pytest.approx(momenta(theirs, key)[:N], rel=1e-12)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_equals_torchs(mode):
    options = {"mode": mode, "gamma": 0.95, "step_size_up": 7, "step_size_down": 4}
    mine = optimizer_of(lr=1.0, momentum=0.9)
    ours = schedule_of("cyclic", mine, **options, cycle_momentum=True)
    optimizer = optimizer_of(lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=[0.1 * lr for lr in LR], max_lr=list(LR), **options
    )
    for _ in range(N):
        assert lrs(mine) == pytest.approx(lrs(optimizer), rel=1e-12)
        pairs = zip(mine.param_groups, optimizer.param_groups, strict=True)
        assert all(a["momentum"] == pytest.approx(b["momentum"], rel=1e-12) for a, b in pairs)
        for each, step in ((mine, ours), (optimizer, theirs)):
            each.step()
            step.step()


def test_cycled_momentum_leaves_optimizers_without_it_alone():
    import pytorch_optimizer

    plain = optimizer_of(lr=1.0)
    sequence(schedule_of("one_cycle", plain))
    assert [group["momentum"] for group in plain.param_groups] == [0, 0]
    sequence(schedule_of("one_cycle", optimizer_of(torch.optim.Adagrad, lr=1.0)))
    averaging = optimizer_of(pytorch_optimizer.ScheduleFreeAdamW)
    sequence(schedule_of("one_cycle", averaging))
    assert averaging.param_groups[0]["betas"][0] == 0.9


def test_cycled_momentum_is_set_group_by_group():
    from truerisk.optimizer import Muon

    params = [torch.zeros(2, 2, requires_grad=True), torch.zeros(2, requires_grad=True)]
    optimizer = Muon(params)
    schedule_of("one_cycle", optimizer)
    matrices, rest = optimizer.param_groups
    assert matrices["momentum"] == rest["betas"][0] == 0.95
    assert [matrices["lr"], rest["lr"]] == pytest.approx([0.02 / 25, 0.001 / 25])


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("cut", [1, 5, 10, 11, 37])
@pytest.mark.parametrize("name", OPTIONS)
def test_resumes_to_the_bit(name, cut, warmup, tmp_path):
    def fresh():
        optimizer = optimizer_of(lr=1.0, momentum=0.9)
        options = {"patience": 3} if name == "plateau" else {}
        return schedule_of(name, optimizer, warmup=warmup, **options)

    risks = [1.0 + (t % 4) for t in range(N)]
    whole = sequence(fresh(), N, risks)
    first = fresh()
    sequence(first, cut, risks)
    torch.save([first.state_dict(), first.optimizer.state_dict()], tmp_path / "state.pt")
    second = fresh()
    schedule, optimizer = torch.load(tmp_path / "state.pt", weights_only=True)
    second.optimizer.load_state_dict(optimizer)
    second.load_state_dict(schedule)
    assert sequence(second, N - cut, risks[cut:]) == whole[cut:]


@pytest.mark.parametrize("name", OPTIONS)
def test_no_warnings(name):
    """Not even where a loss scaler skips the first step."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = optimizer_of(lr=1.0)
        schedule = schedule_of(name, optimizer)
        schedule.step()
        schedule.step_epoch(1.0)
        sequence(schedule)


def test_a_users_own_scheduler_and_its_lengths():
    class Halving(torch.optim.lr_scheduler.LRScheduler):
        lengths = ("every",)

        def __init__(self, optimizer, every):
            self.every = every
            super().__init__(optimizer)

        def get_lr(self):
            return [lr / 2 ** (self.last_epoch // self.every) for lr in self.base_lrs]

    schedule = Schedule(Halving, {"every": 0.5}, optimizer_of(lr=1.0), 10)
    assert [step[0] for step in sequence(schedule, 10)] == [0.1] * 5 + [0.05] * 5 + [0.025]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosine", {"T_max": 100.0}, r"scheduler\.T_max is 100\.0"),
        ("cosine", {"T_max": 0}, r"scheduler\.T_max is 0"),
        ("cosine", {"T_max": True}, r"must be a number"),
        ("cosine", {"T_max": "all"}, r"must be a number"),
        ("cosine", {"warmup": 1.5}, r"scheduler\.warmup is 1\.5"),
        ("cosine", {"warmup": -3}, r"scheduler\.warmup is -3"),
        ("cosine", {"eta_mim": 0.1}, r"scheduler\.eta_mim.*'eta_min'"),
        ("multistep", {"milestones": [0.5, 2.5]}, r"scheduler\.milestones"),
        ("one_cycle", {"pct_start": 1.5}, "pct_start"),
        ("cyclic", {"mode": "square"}, r"scheduler\.mode"),
        ("cyclic", {"base_factor": 1.0}, r"scheduler\.base_factor"),
        ("warmup_stable_decay", {"shape": "cosin"}, "did you mean 'cosine'"),
        ("warmup_stable_decay", {"decay": 100}, r"scheduler\.decay"),
        ("plateau", {"factor": 2.0}, "less|< 1"),
        ("warm_restarts", {"T_mult": 0.5}, "T_mult"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ConfigError, match=message):
        schedule_of(name, optimizer_of(lr=1.0), **options)


def test_constant_costs_next_to_nothing():
    schedule = Schedule(Constant, {}, optimizer_of(lr=1.0), 10_000)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(1000):
            schedule.step()
        times.append((time.perf_counter() - start) / 1000)
    assert min(times) < 15e-6


def test_first_lines_describe():
    for path in CONF.glob("scheduler/*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and len(first) <= 92, path


@pytest.mark.parametrize(
    ("risks", "drops"),
    [
        ([-78.33] * 8, 2),  # constant
        ([-78.33 + 1e-3 * t for t in range(8)], 2),  # rising, by less than torch's margin
        ([0.002, 0.001, 0.0, -0.001, -0.002, -0.003, -0.003, -0.003], 0),  # crossing zero
        ([0.5, -0.5, -0.5, -0.5, -0.5], 1),
        ([-1.0, -1.00005, -1.00015, -1.0002, -1.00021], 0),  # the first step is within the margin
        ([-1.0, -0.9999, -0.9998, -0.9997], 1),
    ],
)
def test_plateau_below_zero(risks, drops):
    """The margin is 1e-4 · |best|, whatever the sign."""
    schedule = schedule_of("plateau", optimizer_of(lr=1.0), patience=2, factor=0.5)
    rates = [step[0] for step in sequence(schedule, len(risks), risks)]
    assert rates[-1] == 0.1 * 0.5**drops


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_above_zero_is_torchs(mode, threshold_mode):
    torch.manual_seed(0)
    options = {"mode": mode, "threshold_mode": threshold_mode, "threshold": 0.05, "patience": 1}
    kinds = (Plateau, torch.optim.lr_scheduler.ReduceLROnPlateau)
    ours, theirs = (kind(optimizer_of(lr=1.0), **options) for kind in kinds)
    for risk in (1 + 0.2 * torch.randn(200)).clamp(min=0).tolist():
        ours.step(risk)
        theirs.step(risk)
        assert ours.get_last_lr() == theirs.get_last_lr()
        assert ours.best == theirs.best


@pytest.mark.parametrize("horizon", [26, 28, 29, 30, 3201])
def test_the_last_step_never_begins_a_descent(horizon):
    """Four descents of a quarter each cover the run, whatever its length."""
    schedule = schedule_of("warm_restarts", optimizer_of(lr=1.0), horizon)
    rates = [step[0] for step in sequence(schedule, horizon)]
    assert math.ceil(horizon / 4) == schedule.target.T_0
    assert rates[:-1].count(max(rates)) == 4
    assert rates[-2] < 0.51 * max(rates)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("constant", {"warmup": 100_000}, r"warmup: the run's 60 steps end before the 100000"),
        ("multistep", {"milestones": [0.5, 5000]}, r"milestones: \[5000\] lie beyond the 60 steps"),
        ("step", {"step_size": 60}, r"step_size: 60 steps.*never drops"),
        ("cosine", {"T_max": 90}, r"T_max: 90 steps are more than the 60"),
        ("warm_restarts", {"T_0": 59}, r"T_0: the last descent has 1 of its 59 steps"),
        ("warmup_stable_decay", {"warmup": 0.8, "decay": 0.8}, r"decay: 0\.8.*takes 0\.16 of"),
    ],
)
def test_what_a_run_is_too_short_for_is_said(name, options, words):
    given = {"warmup": 0, **options}
    (notice,) = schedule_of(name, optimizer_of(lr=1.0), 60, **given).notices
    assert re.match(rf"scheduler\.{words}", notice)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("horizon", [4, 60, 3201])
def test_nothing_is_said_of_the_defaults(name, horizon):
    assert schedule_of(name, optimizer_of(lr=1.0), horizon).notices == []


def test_rates_of_zero_are_told():
    assert Schedule(Constant, {}, optimizer_of(), 9).notices == []
    still = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0)
    (notice,) = Schedule(Constant, {}, still, 9).notices
    assert notice == "optimizer.lr is 0: no weight will move"


def test_an_optimizer_without_a_rate_has_no_schedule():
    """AliG's step is J over ‖∇J‖², and no group has ``lr``."""
    import pytorch_optimizer

    optimizer = pytorch_optimizer.AliG([torch.nn.Parameter(torch.ones(2))])
    schedule = Schedule(Constant, {}, optimizer, horizon=5)
    schedule.step()
    schedule.step_epoch(1.0)
    restored = Schedule(Constant, {}, optimizer, horizon=5)
    restored.load_state_dict(schedule.state_dict())
    assert restored.count == 1 and "lr" not in optimizer.param_groups[0]
    for target, warmup in ((Constant, 3), (InverseSqrt, 0)):
        with pytest.raises(ConfigError, match=r"AliG has no learning rate"):
            Schedule(
                target, {"timescale": 2} if target is InverseSqrt else {}, optimizer, 5, warmup
            )
