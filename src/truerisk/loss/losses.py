"""Losses that torch does not have: of classes, counts and quantiles, and a function's value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from truerisk.core.errors import ConfigError


class Hinge(nn.Module):
    """Multi-class hinge loss of Crammer and Singer, one value a sample.

    ``l(s, y) = max(0, margin + max_{j≠y} s_j − s_y)``

    Only the strongest rival counts. ``torch.nn.MultiMarginLoss`` is another one, which averages
    over all rivals (Weston & Watkins 1999). This one is made of plain tensor operations, so it can
    be differentiated twice and mapped with ``torch.vmap``.

    Shapes: scores [n, K], labels [n] of int64; returns [n].

    Source: Crammer & Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector
    Machines", JMLR 2 (2001), §3.

    Args:
        margin: lead over the strongest rival below which a sample costs something.
        weight: factors of the losses of each class, [K]; None for none.

    Raises:
        ConfigError: the margin is not positive.

    >>> Hinge()(torch.tensor([[2.0, 1.5, -1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 1]))
    tensor([0.5000, 0.0000])
    """

    task = "classification"

    stacks = ("margin",)
    weight: Tensor | None

    def __init__(self, margin: float = 1.0, weight: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", None)
        if weight is not None:
            self.weight = torch.as_tensor(weight)
        if not margin > 0:
            raise ConfigError(f"loss.margin={margin} must be greater than 0")
        self.margin = margin

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample, [n].

        Args:
            scores: [n, K].
            labels: int64 [n].
        """
        labels = labels.unsqueeze(-1)
        true_score = scores.gather(-1, labels)
        # scattered rather than masked, which vmap could not map over
        rival = scores.scatter(-1, labels, -torch.inf).amax(-1, keepdim=True)
        losses = (self.margin + rival - true_score).clamp(min=0).squeeze(-1)
        return losses if self.weight is None else losses * self.weight[labels.squeeze(-1)]

    def extra_repr(self) -> str:
        """Show the margin."""
        return f"margin={self.margin}"


class Ordinal(nn.Module):
    """−log p(y | x) of ordered classes, by whether a sample goes beyond each class it has reached.

    Output k is the log-odds of y > k where y ≥ k, so that of K classes there are K − 1 outputs and
    ``p(y = k) = σ(−f_k) Π_{j<k} σ(f_j)``. It is a likelihood as cross-entropy is, of the same unit.

    Shapes: outputs [n, K − 1], labels [n] of int64 in their order; returns [n].

    Source: Fienberg, "The Analysis of Cross-Classified Categorical Data" (1980), §6.3; Shi, Cao &
    Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based on Conditional
    Probabilities", Pattern Analysis and Applications 26 (2023), §3.3.

    >>> Ordinal()(torch.zeros(3, 2), torch.tensor([0, 1, 2])).exp()
    tensor([2., 4., 4.])
    """

    task = "classification"

    ordered = True
    """The order of the classes counts."""

    def count_outputs(self, num_targets: int) -> int:
        """Return K − 1.

        Args:
            num_targets: the number of classes K.
        """
        return num_targets - 1

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Return log p(k | x), [n, K].

        Args:
            outputs: [n, K − 1].
        """
        zero = torch.zeros_like(outputs[..., :1])
        reached = torch.cat([zero, logsigmoid(outputs).cumsum(-1)], -1)
        return reached + torch.cat([logsigmoid(-outputs), zero], -1)

    def encode_probabilities(self, probabilities: Tensor) -> Tensor:
        """Return the outputs [n, K − 1] of which these are the probabilities.

        Args:
            probabilities: p(k | x), [n, K].
        """
        tiny = torch.finfo(probabilities.dtype).tiny
        p = probabilities.clamp(min=tiny)
        beyond = p.flip(-1).cumsum(-1).flip(-1)
        return beyond[..., 1:].log() - p[..., :-1].log()

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample, [n].

        Args:
            outputs: [n, K − 1].
            labels: int64 [n].
        """
        return -self.log_probabilities(outputs).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


class Squared(nn.Module):
    """Squared distance of the scores from the one-hot class: ``l(s, y) = Σₖ (sₖ − 1[k = y])²``.

    Its risk is lowest where sₖ = p(k | x). Where scores are no probabilities, the nearest ones are
    meant. Of two scores that sum to 1 it is ½(1 − m)², with the margin m = ±(s₁ − s₀).

    Shapes: scores [n, K], labels [n] of int64; returns [n].

    Source: Brier 1950; Hui & Belkin, "Evaluation of Neural Architectures Trained with Square Loss
    vs Cross-Entropy in Classification Tasks", ICLR 2021.

    >>> Squared()(torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor([1, 0]))
    tensor([0.1250, 0.0000])
    """

    task = "classification"

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """Return log p(k | x) of the nearest probabilities, [n, K].

        Args:
            scores: [n, K].

        Source: Held, Wolfe & Crowder, "Validation of Subgradient Optimization" (1974), §3.

        >>> Squared().log_probabilities(torch.tensor([[0.5, 0.9]])).exp()
        tensor([[0.3000, 0.7000]])
        """
        ordered = scores.sort(-1, descending=True).values
        count = torch.arange(1, scores.shape[-1] + 1).to(scores)
        excess = (ordered.cumsum(-1) - 1) / count
        # the shift that leaves a sum of 1 is the largest: one more or one fewer score makes it less
        shifted = scores - excess.amax(-1, keepdim=True)
        return shifted.clamp(min=torch.finfo(scores.dtype).tiny).log()

    def encode_probabilities(self, probabilities: Tensor) -> Tensor:
        """Return the scores [n, K] with the lowest risk: the probabilities themselves.

        Args:
            probabilities: p(k | x), [n, K].
        """
        return probabilities

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample, [n].

        Args:
            scores: [n, K].
            labels: int64 [n].
        """
        own = scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return scores.square().sum(-1) - 2 * own + 1


class Poisson(nn.Module):
    """−log p(y | x) of counts whose rate is the exponential of the output.

    ``l(f, y) = exp(f) − y f + log y!``, with the constant, so that risks are those of a likelihood.

    Shapes: outputs [n, columns], counts [n, columns]; returns [n, columns].

    Source: McCullagh & Nelder, "Generalized Linear Models" (2nd ed. 1989), §6.2.

    >>> float(Poisson()(torch.zeros(1, 1), torch.full((1, 1), 3.0)))  # 1 + log 3!
    2.79175...
    """

    task = "regression"

    def check_targets(self, y: Tensor) -> None:
        """Refuse targets that are no counts.

        Args:
            y: targets [n, columns].

        Raises:
            ConfigError: there is one below 0.
        """
        if bool((y < 0).any()):
            raise ConfigError(
                f"loss=poisson is for counts, and {int((y < 0).sum())} targets are below 0, such "
                f"as {float(y[y < 0][0]):g}: take loss=mse, mae or huber"
            )

    def encode_mean(self, mean: Tensor) -> Tensor:
        """Return the outputs whose rate is a mean.

        Args:
            mean: E[y | x], [n, columns].
        """
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()

    def decode_mean(self, outputs: Tensor) -> Tensor:
        """Return the rates that outputs stand for.

        Args:
            outputs: [n, columns].
        """
        return outputs.exp()

    def fit_constant(self, y: Tensor) -> Tensor:
        """Return the constant outputs with the lowest risk, [1, columns].

        Args:
            y: targets [n, columns].
        """
        return self.encode_mean(y.mean(0, keepdim=True))

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each count, [n, columns].

        Args:
            outputs: [n, columns].
            y: counts [n, columns].
        """
        return outputs.exp() - y * outputs + torch.lgamma(y + 1)


class Quantile(nn.Module):
    """The pinball loss of several quantiles at once, averaged over them.

    ``l(f, y) = mean_τ max(τ (y − f_τ), (τ − 1)(y − f_τ))``: its risk is lowest where f_τ is the
    τ-quantile of y given x. Nothing keeps the quantiles of one sample in their order.

    Shapes: outputs [n, columns · levels], the levels of a column beside each other; targets
    [n, columns]; returns [n, columns].

    Source: Koenker & Bassett, "Regression Quantiles", Econometrica 46 (1978), eq. 3.1.

    Args:
        levels: the τ, each above 0 and below 1.

    Raises:
        ConfigError: there is none, or one that is no such share.

    >>> Quantile([0.1, 0.9])(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0]]))
    tensor([[0.5000]])
    """

    task = "regression"

    def __init__(self, levels: Sequence[float] = (0.1, 0.5, 0.9)) -> None:
        super().__init__()
        numbers = [isinstance(tau, int | float) and 0 < tau < 1 for tau in levels]
        if not numbers or not all(numbers):
            raise ConfigError(
                f"loss.levels is {list(levels)}: give shares above 0 and below 1, as in [0.1, 0.9]"
            )
        self.levels = [float(tau) for tau in levels]
        # not persistent, as the configuration has them
        self.register_buffer("shares", torch.tensor(self.levels), persistent=False)

    shares: Tensor

    def count_outputs(self, num_targets: int) -> int:
        """Return the number of columns times that of levels.

        Args:
            num_targets: columns.
        """
        return num_targets * len(self.levels)

    def encode_mean(self, mean: Tensor) -> Tensor:
        """Return outputs that have a mean for every quantile.

        Args:
            mean: E[y | x], [n, columns].
        """
        return mean.repeat_interleave(len(self.levels), -1)

    def fit_constant(self, y: Tensor) -> Tensor:
        """Return the constant outputs with the lowest risk, [1, columns · levels].

        Args:
            y: targets [n, columns].
        """
        return y.quantile(self.shares.to(y), 0).T.reshape(1, -1)

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each target, [n, columns].

        Args:
            outputs: [n, columns · levels].
            y: targets [n, columns].

        Raises:
            ConfigError: the outputs are of another number.
        """
        if outputs.shape[-1] != self.count_outputs(y.shape[-1]):
            raise ConfigError(
                f"loss=quantile of {len(self.levels)} levels needs as many outputs a target, "
                f"{self.count_outputs(y.shape[-1])} a sample, and got {outputs.shape[-1]}"
            )
        levels = self.shares.to(outputs)
        above = y.unsqueeze(-1) - outputs.unflatten(-1, (y.shape[-1], len(levels)))
        return torch.maximum(levels * above, (levels - 1) * above).mean(-1)

    def extra_repr(self) -> str:
        """Show the levels."""
        return f"levels={self.levels}"


class Value(nn.Module):
    """l = the model's output: what there is to minimise where there is no data.

    Shapes: outputs [n, 1], and targets of any kind, which are not looked at; returns [n].

    >>> import torch
    >>> Value()(torch.tensor([[3.0]]), torch.zeros(1, 1))
    tensor([3.])
    """

    task = "function"

    def forward(self, outputs: Tensor, _targets: Tensor) -> Tensor:
        """Return the value, once a sample, [n].

        Args:
            outputs: [n, 1].
            _targets: of any kind.
        """
        return outputs.squeeze(-1)
