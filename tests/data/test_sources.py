from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import norm

from truerisk.core.errors import ConfigError
from truerisk.data import (
    adding,
    breast_cancer,
    copy_memory,
    diabetes,
    digits,
    gaussians,
    iris,
    mnist1d,
    noisy_linear,
    parity,
    polynomial,
    rare_classes,
    teacher,
    temporal_order,
    wine,
)
from truerisk.data.public_sets import _make_samples

GENERATED = [adding, copy_memory, gaussians, noisy_linear, parity, polynomial, teacher]
GENERATED += [rare_classes, temporal_order]


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mnist1d_undivided_is_both_of_its_sets_in_a_row():
    whole, divided = mnist1d(num_samples=100, train_split=1.0), mnist1d(num_samples=100)
    assert whole.test is None and divided.test is not None
    assert torch.equal(whole.x, torch.cat([divided.x, divided.test[0]]))
    assert torch.equal(whole.y, torch.cat([divided.y, divided.test[1]]))


def test_mnist1d_is_the_package_s_own_and_leaves_the_global_generators_alone():
    from mnist1d.data import get_dataset_args, make_dataset

    from truerisk.core.rng import fork_state

    _make_samples.cache_clear()
    np.random.seed(1)
    random.seed(1)
    before = np.random.get_state()[1].copy(), random.getstate()
    samples = mnist1d(num_samples=200, seed=7, shuffle_seq=True, final_seq_length=30)
    assert (np.random.get_state()[1] == before[0]).all() and random.getstate() == before[1]
    args = get_dataset_args()
    args.num_samples, args.seed, args.shuffle_seq, args.final_seq_length = 200, 7, True, 30
    with fork_state():
        data = make_dataset(args)
    assert samples.x.shape == (160, 1, 30) and samples.test[0].shape == (40, 1, 30)
    np.testing.assert_array_equal(samples.x[:, 0].numpy(), data["x"])
    np.testing.assert_array_equal(samples.test[0][:, 0].numpy(), data["x_test"])
    np.testing.assert_array_equal(samples.y.numpy(), data["y"])
    np.testing.assert_array_equal(samples.test[1].numpy(), data["y_test"])


@pytest.mark.parametrize("source", [digits, breast_cancer, wine, iris, diabetes])
def test_small_data_is_scikit_learn_s(source):
    import sklearn.datasets

    options = {"scaled": False} if source is diabetes else {}
    bunch = getattr(sklearn.datasets, f"load_{source.__name__}")(**options)
    samples = source()
    np.testing.assert_array_equal(samples.x.flatten(1).numpy(), bunch.data)
    np.testing.assert_array_equal(samples.y.flatten().numpy(), bunch.target)
    if source is diabetes:
        assert samples.y.shape == (442, 1) and samples.y.is_floating_point()
    else:
        assert list(samples.class_names) == [str(n) for n in bunch.target_names]


@pytest.mark.parametrize("condition", [1.0, 25.0])
@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_two_gaussians_have_the_bayes_error_of_the_closed_form(distance, condition):
    samples = gaussians(dimension=4, distance=distance, condition=condition)
    x, y = samples.population.sample(200_000, draw())
    posterior = samples.population.bayes(x)
    exact = norm.cdf(-distance / 2)
    stderr = (exact * (1 - exact) / len(y)) ** 0.5
    assert abs((posterior.argmax(1) != y).float().mean() - exact) < 4 * stderr
    assert abs((1 - posterior.max(1).values).mean() - exact) < 4 * stderr


def test_the_posterior_is_bayes_rule():
    samples = gaussians(classes=3, dimension=2, condition=4.0, prior=[0.5, 0.3, 0.2])
    p = samples.population
    x, _ = p.sample(50, draw())
    covariance = p.mixing @ p.mixing.T
    density = torch.stack(
        [
            torch.distributions.MultivariateNormal(m, covariance).log_prob(x)
            for m in p.means @ p.mixing.T
        ],
        1,
    )
    expected = (density + torch.tensor([0.5, 0.3, 0.2]).log()).softmax(1)
    torch.testing.assert_close(p.bayes(x), expected, rtol=1e-3, atol=1e-5)


def test_gaussian_samples_have_the_moments_of_the_population():
    p = gaussians(classes=3, dimension=3, condition=9.0, distance=2.0, prior=[2, 1, 1]).population
    torch.testing.assert_close(torch.pdist(p.means), torch.full((3,), 2.0))
    x, y = p.sample(100_000, draw())
    assert (torch.bincount(y) / len(y) - torch.tensor([0.5, 0.25, 0.25])).abs().max() < 0.006
    centred = x - (p.means @ p.mixing.T)[y]
    torch.testing.assert_close(torch.cov(centred.T), p.mixing @ p.mixing.T, rtol=0.03, atol=0.02)
    assert torch.linalg.cond(p.mixing @ p.mixing.T) == pytest.approx(9.0, rel=1e-4)
    assert torch.linalg.matrix_norm(p.mixing, 2) == pytest.approx(1.0, rel=1e-5)


def test_random_means_are_as_far_apart_as_asked_on_average():
    many = gaussians(classes=400, dimension=20, distance=3.0, arrangement="random").population
    assert torch.pdist(many.means).square().mean() == pytest.approx(9.0, rel=0.05)


def test_a_teacher_s_targets_are_its_mean_plus_noise():
    p = teacher(outputs=2, noise=0.3).population
    x, y = p.sample(100_000, draw())
    residual = y - p.mean(x)
    assert p.noise_variance == pytest.approx(0.09)
    torch.testing.assert_close(residual.var(0), torch.full((2,), 0.09), rtol=0.02, atol=0)
    assert residual.mean(0).abs().max() < 4 * 0.3 / 100_000**0.5
    torch.testing.assert_close(p.mean(x).var(0), torch.ones(2), rtol=0.05, atol=0)
    assert p.mean(x).mean(0).abs().max() < 0.05


def test_a_teacher_s_labels_follow_its_probabilities():
    p = teacher(outputs=3, task="classification", temperature=0.7).population
    x, y = p.sample(100_000, draw())
    probability = p.bayes(x)
    torch.testing.assert_close(probability, (p.mean(x) / 0.7).softmax(1))
    hit = torch.nn.functional.one_hot(y, 3) - probability
    assert hit.mean(0).abs().max() < 4 * 0.5 / 100_000**0.5
    assert (hit * probability).mean(0).abs().max() < 4 * 0.5 / 100_000**0.5


def test_a_teacher_is_the_network_it_says():
    p = teacher(dimension=3, width=4, depth=3, activation="relu").population
    x = torch.randn(5, 3, generator=draw())
    first, second, last = p.weights
    by_hand = ((x @ first).clamp_min(0) @ second).clamp_min(0) @ last
    torch.testing.assert_close(p.mean(x), (by_hand - p.shift) / p.scale)


def test_a_polynomial_s_targets_are_its_mean_plus_noise():
    samples = polynomial(100_000, coefficients=[1.0, -2.0, 0.0, 3.0], noise=0.5, seed=3)
    x, y = samples.x, samples.y
    expected = np.polynomial.polynomial.polyval(x.double().numpy(), [1.0, -2.0, 0.0, 3.0])
    residual = y.double() - torch.as_tensor(expected)
    assert residual.var() == pytest.approx(0.25, rel=0.02)
    assert samples.population.noise_variance == 0.25
    assert abs(residual.mean()) < 4 * 0.5 / 100_000**0.5
    assert x.abs().max() <= 1 and x.var() == pytest.approx(1 / 3, rel=0.02)


def test_a_noisy_line_has_the_covariance_and_the_noise_asked_for():
    samples = noisy_linear(100_000, dimension=4, condition=9.0, signal=2.0, noise=0.5, seed=3)
    p = samples.population
    covariance = p.mixing @ p.mixing.T
    found = torch.linalg.eigvalsh(covariance.double())
    torch.testing.assert_close(
        found[[0, -1]], torch.tensor([1 / 9, 1.0]).double(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(torch.cov(samples.x.T), covariance, rtol=0.03, atol=0.01)
    assert float(p.weights.norm()) == pytest.approx(2.0, rel=1e-6)
    residual = samples.y - p.mean(samples.x)
    assert residual.var() == pytest.approx(0.25, rel=0.02)
    spectrum = noisy_linear(spectrum=[4.0, 1.0]).population.mixing
    torch.testing.assert_close(torch.linalg.svdvals(spectrum), torch.tensor([2.0, 1.0]))


def test_adding_marks_two_numbers_whose_sum_has_the_variance_of_two():
    """The best constant is 1, with an error of 2/12."""
    samples = adding(50_000, steps=30, seed=2)
    numbers, marks = samples.x.unbind(1)
    assert marks[:, :15].sum(1).eq(1).all() and marks[:, 15:].sum(1).eq(1).all()
    assert torch.equal(samples.y[:, 0], (numbers * marks).sum(1))
    # E (s − 1)⁴ = 1/15, so that a mean of squares is known to √(1/15 − 1/36)/√n
    error = ((samples.y - 1) ** 2).mean()
    assert abs(error - 1 / 6) < 4 * (1 / 15 - 1 / 36) ** 0.5 / 50_000**0.5
    # a place in a half is as likely as another
    places = marks[:, 15:].mean(0)
    assert (places - 1 / 15).abs().max() < 4.5 * (1 / 15) ** 0.5 / 50_000**0.5
    assert samples.population.noise_variance == 0


def test_temporal_order_is_told_by_the_two_that_count():
    samples = temporal_order(20_000, steps=40, seed=2)
    symbols = samples.x.argmax(1)
    assert samples.x.sum(1).eq(1).all() and (symbols < 2).sum(1).eq(2).all()
    where = (symbols < 2).nonzero()[:, 1].reshape(-1, 2)
    spans = [(int(where[:, i].min()), int(where[:, i].max())) for i in (0, 1)]
    assert spans == [(4, 8), (16, 20)]
    letters = symbols.gather(1, where)
    assert torch.equal(samples.y, 2 * letters[:, 0] + letters[:, 1])
    assert torch.equal(samples.population.bayes(samples.x).argmax(1), samples.y)
    # each of four classes, and of four other symbols, alike often
    shares = samples.y.bincount() / 20_000
    assert (shares - 1 / 4).abs().max() < 4 * (3 / 16 / 20_000) ** 0.5
    others = symbols[symbols >= 2].bincount()[2:] / (20_000 * 38)
    assert (others - 1 / 4).abs().max() < 4 * (3 / 16 / 20_000 / 38) ** 0.5


def test_ten_symbols_are_asked_for_once_their_memory_has_waited():
    samples = copy_memory(4000, blanks=7, seed=2)
    x, y = samples.x, samples.y
    assert x.shape == y.shape == (4000, 27) and samples.num_outputs == 10
    assert x[:, :10].max() == 7 and x[:, :10].min() == 0
    # the marker says that the symbols are to begin at the next step
    rest = torch.tensor([8] * 6 + [9] + [8] * 10)
    assert torch.equal(x[:, 10:], rest.expand(4000, 17))
    assert (y[:, :17] == 8).all() and torch.equal(y[:, 17:], x[:, :10])
    # from where a symbol stands to where it is asked for there are T + 10 steps
    assert torch.equal(samples.population.bayes(x).argmax(-1), y)
    shares = x[:, :10].flatten().bincount() / 40_000
    assert (shares - 1 / 8).abs().max() < 4 * (7 / 64 / 40_000) ** 0.5


def test_classes_are_as_rare_as_they_are_many():
    samples = rare_classes(groups=4, seed=3)
    counts = samples.y.bincount().tolist()
    assert counts == [16, *[8] * 2, *[4] * 4, *[2] * 8] and samples.x.shape == (64, 80)
    p = samples.population
    assert p.prior.sum() == 1 and torch.equal(p.prior * 64, torch.tensor(counts).float())
    # the kth class has at most the share of the first over k, and more than half of that
    k = torch.arange(1, 16)
    assert (p.prior <= p.prior[0] * 2 / (k + 1)).all() and (p.prior >= p.prior[0] / k).all()
    x, y = p.sample(100_000, draw())
    shares = y.bincount(minlength=15) / 100_000
    assert ((shares - p.prior).abs() < 4.5 * (p.prior / 100_000).sqrt()).all()
    assert abs(x.mean() - 1 / 2) < 4 * (1 / 12 / x.numel()) ** 0.5
    assert torch.equal(p.bayes(x[:2]), p.prior.expand(2, -1))
    assert rare_classes(3, dimension=2).x.shape == (24, 2)


def test_parity_is_that_of_the_bits_that_count():
    samples = parity(4000, dimension=6, relevant=3, seed=2)
    assert set(samples.x.unique().tolist()) == {0.0, 1.0}
    first = samples.x[:, :3].int()
    assert torch.equal(samples.y, (first[:, 0] ^ first[:, 1] ^ first[:, 2]).long())
    whole = parity(4000, dimension=6, seed=2)
    assert torch.equal(whole.x, samples.x) and not torch.equal(whole.y, samples.y)
    # no bit tells the class: correlations are those of chance
    signs = 1 - 2 * samples.x
    assert (signs.T @ (1.0 - 2 * samples.y) / 4000).abs().max() < 4 / 4000**0.5


@pytest.mark.parametrize("source", GENERATED)
def test_samples_depend_on_the_seed_and_p_does_not(source):
    a, b, c = (source(seed=s) for s in (1, 1, 2))
    assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and not torch.equal(a.x, c.x)
    x = a.x[:9]
    law = "mean" if a.task == "regression" else "bayes"
    assert torch.equal(getattr(a.population, law)(x), getattr(c.population, law)(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mnist1d(num_samples=5), "data.source.num_samples is 5"),
        (lambda: mnist1d(train_split=1.5), "data.source.train_split is 1.5"),
        (lambda: gaussians(classes=4, dimension=2), "need at least 3"),
        (lambda: gaussians(classes=1), "data.source.classes is 1"),
        (lambda: gaussians(distance=-1), "data.source.distance is -1"),
        (lambda: gaussians(condition=0.5), "data.source.condition is 0.5"),
        (lambda: gaussians(arrangement="simplx"), "did you mean 'simplex'"),
        (lambda: gaussians(prior=[1.0]), "give 2 positive numbers"),
        (lambda: teacher(task="clasification"), "did you mean 'classification'"),
        (lambda: teacher(task="classification"), "data.source.outputs is 1: give at least 2"),
        (lambda: teacher(activation="tan"), "did you mean 'tanh'"),
        (lambda: teacher(temperature=0), "data.source.temperature is 0"),
        (lambda: teacher(noise=-1), "data.source.noise is -1"),
        (lambda: polynomial(coefficients=[]), "data.source.coefficients is empty"),
        (lambda: polynomial(noise=-0.1), "data.source.noise is -0.1"),
        (lambda: noisy_linear(spectrum=[1, -1]), "data.source.spectrum is [1, -1]"),
        (lambda: noisy_linear(spectrum=[]), "data.source.spectrum is []: give variances"),
        (lambda: noisy_linear(spectrum=[1, math.nan]), "data.source.spectrum is [1, nan]"),
        (lambda: noisy_linear(dimension=0), "data.source.dimension must be a number"),
        (lambda: noisy_linear(condition=math.nan), "data.source.condition must be a number"),
        (lambda: noisy_linear(condition=math.inf), "data.source.condition must be a number"),
        (lambda: noisy_linear(signal=math.nan), "data.source.signal must be a number"),
        (lambda: polynomial(0), "data.source.num_samples is 0"),
        (lambda: adding(0), "data.source.num_samples must be"),
        (lambda: adding(steps=1), "data.source.steps must be"),
        (lambda: temporal_order(steps=9), "data.source.steps must be"),
        (lambda: copy_memory(blanks=0), "data.source.blanks must be"),
        (lambda: rare_classes(1), "data.source.groups must be"),
        (lambda: rare_classes(13), "data.source.groups is 13"),
        (lambda: parity(dimension=3, relevant=4), "data.source.relevant is 4: there are 3 bits"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)
