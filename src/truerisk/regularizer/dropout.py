"""Dropout, put into a finished model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Regularizer

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Tanhshrink,
    nn.GLU,
)
"""Modules whose outputs are hidden units: dropout follows them."""

DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""Modules that drop units with a probability ``p``."""


class Dropout(Regularizer):
    """Dropout: while training, hidden units are 0 with probability p, and ``1/(1 − p)`` as large
    otherwise; in evaluation nothing changes.

    It goes where the model says: a model with dropout modules of its own gets p there. Otherwise it
    follows every activation module; a model without those, or with functional activations only,
    gets it before its last `nn.Linear`. The names of parameters stay as they were.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout", JMLR 15 (2014).

    Args:
        p: probability that a unit is dropped, in [0, 1).

    Raises:
        ConfigError: the model has no such place.

    >>> Dropout(0.5).edit_model(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))[1]
    ReLU(
      (dropout): Dropout(p=0.5, inplace=False)
    )
    """

    stacks = ("p",)
    requires = ("samples",)

    def __init__(self, p: float) -> None:
        if check_float("regularizer.dropout.p", p, 0, 1) == 1:
            raise ConfigError("regularizer.dropout.p=1 would drop every unit: take less than 1")
        self.p = p

    def edit_model(self, model: nn.Module) -> nn.Module:
        """Set the model's dropout, or insert it, in place."""
        modules = list(model.modules())
        dropouts = [m for m in modules if isinstance(m, DROPOUTS)]
        activations = [m for m in modules if isinstance(m, ACTIVATIONS)]
        linear = [m for m in modules if isinstance(m, nn.Linear)]
        if dropouts:
            for dropout in dropouts:
                dropout.p = self.p
        elif activations:
            for module in activations:
                self._add_dropout(module).register_forward_hook(_drop_output)
        elif linear:
            self._add_dropout(linear[-1]).register_forward_pre_hook(_drop_input)
        else:
            raise ConfigError(
                "regularizer=dropout finds no place in the model: it has no dropout, activation or "
                "nn.Linear module; put nn.Dropout modules into it, or leave dropout out"
            )
        return model

    def _add_dropout(self, module: nn.Module) -> nn.Module:
        # a submodule and a hook, not a Sequential around it: parameter names and types stay
        module.add_module("dropout", nn.Dropout(self.p))
        return module


# functions of the module, not closures over it: a model is copied and pickled with its hooks


def _drop_output(module: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return module.dropout(output)


def _drop_input(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.dropout(inputs[0]), *inputs[1:])
