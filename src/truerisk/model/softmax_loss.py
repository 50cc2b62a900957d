"""The cross-entropy of logits in a floating-point format, written in three ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.functions import Function, Range, check_start

FORMATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
FORMS = ("naive", "shifted", "logits")


class SoftmaxLoss(Function):
    """f(w) = −log softmax(w)ₖ, every operation rounded to ``format``.

    | form    | softmax(w)ₖ                     | −log of it                         |
    |---------|---------------------------------|------------------------------------|
    | naive   | exp wₖ / Σ exp wⱼ               | inf or nan once an exp overflows   |
    | shifted | exp(wₖ − m) / Σ exp(wⱼ − m)     | inf once the k-th exp underflows   |
    | logits  |                                 | m − wₖ + log Σ exp(wⱼ − m): finite |

    with m = max w.

    Source: Goodfellow, Bengio & Courville, *Deep Learning* (2016), §4.1; Blanchard, Higham &
    Higham, "Accurately Computing the Log-Sum-Exp and Softmax Functions", IMA Journal of Numerical
    Analysis 41 (2021).

    Args:
        start: w before the first step, the logits.
        target: k, the class, counted from 0.
        form: naive, shifted or logits.
        format: float64, float32, bfloat16 or float16.
        dtype: of ``w``; None for torch's default.

    Raises:
        ConfigError: a name is not known, or there is no such class.

    >>> logits = torch.tensor([1000.0, 990.0, 980.0])
    >>> [SoftmaxLoss([0.0] * 3, 1, form).value(logits).item() for form in FORMS]
    [nan, 10.00004..., 10.00004...]
    """

    minimum = None
    region: Sequence[Range] = ((-10.0, 10.0), (-10.0, 10.0))

    def __init__(
        self,
        start: list[float],
        target: int = 0,
        form: str = "logits",
        format: str = "float32",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.size = len(check_start(start))  # any number of classes: set before it is checked
        super().__init__(start, dtype)
        for key, name, options in (("form", form, FORMS), ("format", format, FORMATS)):
            if name not in options:
                raise ConfigError(f"model.{key}={name}: {suggest(str(name), list(options))}")
        if check_int("model.target", target, 0) >= self.size:
            raise ConfigError(f"model.target={target}: the {self.size} classes count from 0")
        self.form = form
        self.format = FORMATS[format]
        self.target = target

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        z = w.to(self.format)
        if self.form != "naive":
            z = shift_logits(z)
        exps = z.exp()
        if self.form == "logits":
            loss = exps.sum(-1).log() - z[..., self.target]
        else:
            loss = -(exps[..., self.target] / exps.sum(-1)).log()
        return loss.to(w.dtype)


def shift_logits(z: Tensor) -> Tensor:
    """Subtract the largest logit, which leaves the softmax as it is."""
    return z - z.amax(-1, keepdim=True)
