"""Spectral normalization."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Regularizer

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


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
        if not all(layer.weight.any() for layer in layers):
            raise ConfigError(
                "regularizer=spectral_norm divides each weight by its largest singular value, "
                "and one is zero: take another initializer"
            )
        for layer in layers:
            parametrizations.spectral_norm(layer, n_power_iterations=self.iterations)
        return model
