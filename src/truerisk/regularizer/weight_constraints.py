"""Constraints on the weights: max-norm, spectral normalization."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrizations

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Regularizer
from truerisk.regularizer.penalties import ParameterGrouping, Rules

LAYERS = (nn.Linear, _ConvNd)
"""Layers with one weight matrix, whose spectral norm bounds what they do to lengths."""


class MaxNorm(Regularizer):
    """Max-norm constraint: after every step, ``‖w_u‖₂ ≤ c`` for each unit u.

    ``w_u`` is what feeds one unit: a row of a dense layer's weight, a filter of a convolution. One
    that is too long is scaled back to length c, the nearest feasible point; the others are not
    touched. Vectors and scalars, such as biases, are free.

    Source: Srebro, Rennie & Jaakkola, "Maximum-Margin Matrix Factorization", NeurIPS 2004; for
    networks Srivastava et al., "Dropout", JMLR 15 (2014), §5.1.

    Args:
        bound: c > 0.
        rules: ordered parameter rules that set ``bound``, null for none; see ``ParameterPenalty``.

    Raises:
        ConfigError: a bound is not positive, or a rule sets something unknown.

    >>> import torch
    >>> w = torch.tensor([[3.0, 4.0], [0.6, 0.8]])
    >>> MaxNorm(2.5).project({"weight": w}); w
    tensor([[1.5000, 2.0000],
            [0.6000, 0.8000]])
    """

    stacks = ("bound",)

    def __init__(self, bound: float, rules: Rules | None = ()) -> None:
        self.bound = check_float("regularizer.max_norm.bound", bound, above=True)
        self.groups = ParameterGrouping("regularizer.max_norm", ("bound",), rules)
        for rule in self.groups.rules:
            if rule.get("bound") is not None:
                check_float("regularizer.max_norm.rules: bound", rule["bound"], above=True)

    def edit_model(self, model: nn.Module) -> nn.Module:
        """Look at the model, and leave it as it is."""
        return self.groups.look_at(model)

    def project(self, params: Mapping[str, Tensor]) -> None:
        """Scale back the rows that are too long, in place."""
        for group in self.groups(params):
            bound = group.numbers.get("bound", self.bound)
            for name in group.names:
                # leaves rows within the bound as they are, to the bit
                if params[name].ndim > 1:
                    params[name].renorm_(2, 0, bound)


class SpectralNorm(Regularizer):
    """Spectral normalization: every dense and convolutional layer computes with ``W/σ(W)``.

    σ is the largest singular value, of a convolution's kernel as a matrix [out, in · window],
    estimated by power iteration, one round a forward pass while training. Each dense layer is then
    1-Lipschitz. Recurrent and attention input weights are left alone.

    The trained parameter is W; its name becomes ``….parametrizations.weight.original``.

    Source: Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial
    Networks", ICLR 2018, §2.1; carried out by `torch.nn.utils.parametrizations.spectral_norm`.

    Args:
        iterations: rounds of power iteration a forward pass.

    Raises:
        ConfigError: the model has no dense or convolutional layer, or a weight of one is zero.
    """

    unstackable = "changes its buffers in place"
    requires = ("samples",)

    def __init__(self, iterations: int = 1) -> None:
        self.iterations = check_int("regularizer.spectral_norm.iterations", iterations)

    def edit_model(self, model: nn.Module) -> nn.Module:
        """Parametrize the weights, in place."""
        layers = [m for m in model.modules() if isinstance(m, LAYERS)]
        if not layers:
            raise ConfigError(
                "regularizer=spectral_norm finds no nn.Linear or convolution in the model: leave "
                "it out, or pick another model"
            )
        # torch would divide by zero, and train on NaN without a word
        if not all(layer.weight.any() for layer in layers):
            raise ConfigError(
                "regularizer=spectral_norm divides each weight by its largest singular value, "
                "and one is zero: take another initializer"
            )
        for layer in layers:
            parametrizations.spectral_norm(layer, n_power_iterations=self.iterations)
        return model
