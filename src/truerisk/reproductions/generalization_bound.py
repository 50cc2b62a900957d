"""Bounds on the true risk hold as often as they say; one on held-out samples is the tightest.

Each of 500 training sets has a linear classifier, and four upper bounds at a confidence of 95 %:
two from 200 held-out samples, by Hoeffding's inequality and by inverting the binomial tail, and two
from the 1000 training samples, by PAC–Bayes and by the VC dimension. What they bound is known: the
0–1 risk of a linear rule is a normal probability here. PAC–Bayes bounds that of random rules around
the classifier, N(μw/‖w‖, I), whose error is measured on 20 000 samples of P; of μ = 1, 2, 4, 8, 16
the best is taken, at a fifth of the 5 % each.

Looseness is the bound less the risk that it bounds.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Claim,
    Finding,
    Runs,
    claim,
    load_last_weights,
    mean_finding,
    read_series,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "P(f ≤ bound) ≥ 1 − δ:   ê + √(ln(1/δ)/2m);   kl(ê‖f) ≤ (KL + ln(2√n/δ))/n"
SOURCE = "Langford 2005, Tutorial on Practical Prediction Theory for Classification; Maurer 2004"
TOPIC = "Risk and generalization"
COST = "1 min"
QUICK = ["seed=range(20)"]
DELTA = 0.05
SPREADS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""μ: how far the random rules' mean lies from 0, where their prior has its mean."""
FRESH = 20_000
NAMES = {
    "hoeffding": "held out, Hoeffding",
    "binomial": "held out, binomial tail",
    "pac_bayes": "PAC–Bayes",
    "vc": "VC dimension",
}


class Bounded(NamedTuple):
    """A bound, and the risk that it is of."""

    bound: float
    risk: float


def invert_binomial_tail(errors: int, m: int, delta: float = DELTA) -> float:
    """Find the largest risk with which as few errors have a probability of δ.

    Args:
        errors: k, of m samples.
        m: samples held out.
        delta: δ.

    Source: Clopper & Pearson 1934; Langford 2005, theorem 3.3.

    >>> round(1 - invert_binomial_tail(0, 20), 4) == round(0.05 ** (1 / 20), 4)
    True
    """
    from scipy.special import betaincinv

    if errors >= m:
        return 1.0
    return float(betaincinv(errors + 1, m - errors, 1 - delta))


def invert_divergence(share: float, budget: float) -> float:
    """Find the largest q with kl(p‖q) ≤ c, by bisection.

    Args:
        share: p.
        budget: c.

    >>> round(invert_divergence(0.0, 1.0), 6) == round(1 - math.exp(-1), 6)
    True
    """
    low, high = share, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        divergence = (1 - share) * math.log((1 - share) / (1 - middle)) if middle < 1 else math.inf
        if share > 0:
            divergence += share * math.log(share / middle)
        if divergence > budget:
            high = middle
        else:
            low = middle
    return high


def bound_pac_bayes(w: np.ndarray, train: Any, fresh: Any) -> Bounded:
    """Bound the error of random rules N(μw/‖w‖, I), by the best μ.

    Args:
        w: the classifier's weights [d].
        train: inputs and signs of the training samples, [n, d] and [n].
        fresh: those of samples of P.
    """
    from scipy.special import ndtr

    best = Bounded(math.inf, math.nan)
    n = len(train[0])
    for spread in SPREADS:
        # a random rule errs on x where a normal variable of mean μ·margin is negative
        errors = [float(ndtr(-spread * measure_margins(w, *one)).mean()) for one in (train, fresh)]
        budget = (spread**2 / 2 + math.log(2 * math.sqrt(n) * len(SPREADS) / DELTA)) / n
        best = min(best, Bounded(invert_divergence(errors[0], budget), errors[1]))
    return best


def measure_margins(w: np.ndarray, x: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return y wᵀx / (‖w‖ ‖x‖), [n].

    Args:
        w: [d].
        x: [n, d].
        signs: ±1 [n].
    """
    return np.asarray(signs * (x @ w) / np.linalg.norm(w) / np.linalg.norm(x, axis=1))


@cache
def find_bounds(run: RunResult) -> dict[str, Bounded]:
    """Compute all bounds of a run, by name, beside what they bound."""
    import torch

    from truerisk.assemble import build_data

    data: Any = build_data(run.config)
    w = load_last_weights(run)
    true = data.population.expect_errors(torch.from_numpy(w))
    x, signs = data.train.x.double().numpy(), 2 * data.train.y.numpy() - 1
    n, d = x.shape
    m = len(data.val.y)
    errors = round(float(read_series(run, "error/val")[-1]) * m)
    share = float(np.mean(signs * (x @ w) <= 0))
    fresh_x, fresh_y = data.population.sample(FRESH, torch.Generator().manual_seed(1))
    fresh = fresh_x.double().numpy(), 2 * fresh_y.numpy() - 1
    confidence = math.log(1 / DELTA)
    capacity = math.sqrt(2 * d * math.log(math.e * n / d) / n)
    return {
        "hoeffding": Bounded(errors / m + math.sqrt(confidence / (2 * m)), true),
        "binomial": Bounded(invert_binomial_tail(errors, m), true),
        "pac_bayes": bound_pac_bayes(w, (x, signs), fresh),
        "vc": Bounded(share + capacity + math.sqrt(confidence / (2 * n)), true),
    }


def measure_looseness(runs: Runs, name: str) -> np.ndarray:
    """Return the bound less the risk of each run, [runs].

    Args:
        runs: the study's.
        name: of the bound.
    """
    pairs = [find_bounds(run)[name] for run in runs]
    return np.array([pair.bound - pair.risk for pair in pairs])


def claim_share(name: str, source: str, low: float, why: str) -> Claim:
    """Make the claim on the share of data sets on which a bound holds."""

    @claim(f"{NAMES[name]}: share of data sets on which it holds", source=source, why=why, low=low)
    def share(runs: Runs) -> Finding:
        from truerisk.risk.intervals import wilson_bounds
        from truerisk.risk.measured import Measured

        holds = measure_looseness(runs, name) >= 0
        part, count = float(holds.mean()), len(holds)
        error = math.sqrt(part * (1 - part) / (count - 1))
        return Finding(part, *wilson_bounds(Measured(part, error, None, count)))

    return share


STATED = "the confidence that it states"
hoeffding = claim_share("hoeffding", "Hoeffding 1963, theorem 2", 0.95, STATED)
binomial = claim_share(
    *("binomial", "Langford 2005, theorem 3.3", 0.93),
    why=f"{STATED}, which it hardly exceeds, less two standard errors of a share of 500",
)
pac_bayes = claim_share("pac_bayes", "Maurer 2004, theorem 5; Langford 2005, §5", 0.95, STATED)
vc = claim_share("vc", "Mohri, Rostamizadeh & Talwalkar 2018, corollary 3.19", 0.95, STATED)


@claim(
    "held out, Hoeffding: how loose, less √(ln(1/δ)/2m)",
    source="Hoeffding 1963; the held-out error is unbiased",
    why="three standard errors of the mean over 500 sets of 200 samples",
    expected=0.0,
    within=0.005,
)
def hoeffding_is_loose(runs: Runs) -> Finding:
    """The mean over data sets."""
    m = runs[0].config.data.val
    reach = math.sqrt(math.log(1 / DELTA) / (2 * m))
    return mean_finding((measure_looseness(runs, "hoeffding") - reach).tolist())


def claim_order(tight: str, loose: str, source: str) -> Claim:
    """Make the claim that one bound is looser than another, on average."""

    @claim(
        f"{NAMES[loose]} is looser than {NAMES[tight]}: by",
        source=source,
        why="the sign alone",
        low=0.0,
    )
    def order(runs: Runs) -> Finding:
        difference = measure_looseness(runs, loose) - measure_looseness(runs, tight)
        return mean_finding(difference.tolist())

    return order


LANGFORD = "Langford 2005, §3 to §6"
tail_is_tighter = claim_order("binomial", "hoeffding", "Langford 2005, §3.2")
training_is_looser = claim_order("hoeffding", "pac_bayes", LANGFORD)
capacity_is_looser = claim_order("pac_bayes", "vc", LANGFORD)


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the looseness of every data set, by bound.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    axes = figure.add_subplot()
    ink = axes.xaxis.label.get_color()
    draw = np.random.default_rng(0)
    for row, name in enumerate(NAMES):
        looseness = measure_looseness(runs, name)
        # scattered up and down, or equal ones would hide
        rows = row + draw.uniform(-0.25, 0.25, len(looseness))
        axes.plot(looseness, rows, ".", color=f"C{row}", markersize=3)
        share = f"holds on {100 * np.mean(looseness >= 0):.3g} %"
        axes.text(0.18, row, share, color=f"C{row}", va="center")
    axes.axvline(0, color=ink, linewidth=1.2)
    axes.set_yticks(range(len(NAMES)), list(NAMES.values()), color=ink)
    axes.set(ylim=(len(NAMES) - 0.5, -0.5), xlabel="bound − true risk, each of the data sets")
    axes.grid(axis="y", visible=False)
