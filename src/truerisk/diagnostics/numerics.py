"""What number formats of 16 bits lose of gradients and activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from truerisk.core.checks import check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Formats of 16 bits, whether the run has them or not."""

RUN_FORMATS = {
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "64-true": torch.float64,
}
"""The format of a run's forward pass, by ``trainer.precision``; float32 otherwise."""


class Numerics(Diagnostic):
    """Underflow of gradients and the room above the largest activation.

    Of the gradient that the last step left, over all its values:

    | number                         | is                                                      |
    |--------------------------------|---------------------------------------------------------|
    | `gradient/{smallest,largest}`  | the range of \\|values\\|, without zeros                  |
    | `zero`                         | share of zeros                                          |
    | `lost/{fp16,bf16}`             | share of the others that the format would round to zero |

    ``lost/run`` is measured under mixed precision: on some training samples, the share of values
    that are zero in the gradient of the risk computed as the run computes it (with its loss scale)
    and not in the one computed in the precision of the weights. A value v is lost to a format whose
    smallest number is s if |v| ≤ s/2: 3.0e-8 for fp16, 4.6e-41 for bf16; a loss scale multiplies v
    (Micikevicius et al. 2018, §3.2).

    ``activation/<layer>`` is the largest |output| of a layer on those samples in the run's
    precision, ``activation_share`` the largest of all as a share of the largest number of the run's
    format, and ``loss_scale`` what it is, where there is a scaler.

    Args:
        every: when to look; see `Diagnostic`.
        samples: that are shown to the model.
    """

    first = 1

    def __init__(self, every: Mapping[str, Any] | None = None, samples: int = 200) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.numerics.samples", samples)

    def look(self, snapshot: Snapshot) -> Values:
        """Measure the gradient of the last step, and the activations of some samples."""
        scaler, precision = snapshot.run.loss_scaler, snapshot.run.precision
        scale = 1.0
        if scaler is not None:
            scale = scaler.get_scale()
        values = _measure_gradient(snapshot.gradients.values())
        if "mixed" in precision:
            values["lost/run"] = self._measure_loss(snapshot, scale)
        largest = self._find_largest(snapshot)
        values |= {f"activation/{name}": value for name, value in largest.items()}
        limit = torch.finfo(RUN_FORMATS.get(precision, torch.float32)).max
        values["activation_share"] = max(largest.values(), default=0.0) / limit
        if scaler is not None:
            values["loss_scale"] = scale
        return values

    def _measure_loss(self, snapshot: Snapshot, scale: float) -> float:
        """Measure the share of the gradient that is zero in the run's precision alone."""
        # cuDNN's recurrent layers have no backward pass in eval mode
        with cudnn.flags(enabled=False):
            with snapshot.run.forward_context():
                run = self._compute_gradient(snapshot, scale)
            full = self._compute_gradient(snapshot, 1.0)
        return mean_where((run == 0) & (full != 0), where=full != 0)

    def _compute_gradient(self, snapshot: Snapshot, scale: float) -> Tensor:
        """Compute the gradient [p] of the risk of some samples, times the loss scale."""
        # copies, as gradients of the model's own parameters would be accumulated in ``.grad``
        params = {n: p.detach().clone().requires_grad_() for n, p in snapshot.params.items()}
        objective = snapshot.objective
        count = min(self.samples, len(snapshot.run.measured_index))
        for batch in snapshot.batches(most=count):
            risk = scale * objective.losses(objective.outputs(params, batch.x), batch)
            (risk.sum() / count).backward()
        parts = (p.new_zeros(p.shape) if p.grad is None else p.grad for p in params.values())
        return torch.cat([part.flatten() for part in parts])

    def _find_largest(self, snapshot: Snapshot) -> dict[str, float]:
        """Find the largest |output| of every layer without layers inside, by layer."""
        maxima: dict[str, Tensor] = {}

        def make_hook(name: str) -> Any:
            def hook(_layer: nn.Module, _args: Any, output: Any) -> None:
                if isinstance(output, tuple):  # of a recurrent layer: outputs, last state
                    output = output[0]
                largest = output.detach().abs().amax().float()
                maxima[name] = torch.maximum(maxima.get(name, largest), largest)

            return hook

        # without containers, whose outputs are those of their last layer
        leaves = [(n, m) for n, m in snapshot.model.named_modules() if n and not any(m.children())]
        hooks = (layer.register_forward_hook(make_hook(name)) for name, layer in leaves)
        snapshot.forward_samples(self.samples, hooks)
        if not maxima:
            return {}
        return dict(zip(maxima, torch.stack(list(maxima.values())).tolist(), strict=True))

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the range of the gradient, what is lost of it, and the largest activations."""
        from truerisk.diagnostics.history_plots import (
            add_panels,
            draw_layers,
            draw_level,
            draw_lines,
        )

        headings = ["|values| of the gradient", "share lost to underflow"]
        axes = add_panels(figure, table, [*headings, "largest |output|, by layer"], (1.2, 1, 1.2))
        ends = {"largest": "gradient/largest", "smallest": "gradient/smallest"}
        draw_lines(axes[0], {k: table[n] for k, n in ends.items() if n in table})
        lost = {k: table[f"lost/{k}"] for k in (*FORMATS, "run") if f"lost/{k}" in table}
        draw_lines(axes[1], lost, from_zero=True)
        draw_layers(axes[2], table, "activation")
        draw_level(axes[0], 2.0**-24, "smallest of fp16")
        draw_level(axes[2], 65504, "largest of fp16")


def _measure_gradient(gradients: Iterable[Tensor]) -> dict[str, float]:
    """Measure the range of a gradient's values, and what 16-bit formats would make zero."""
    values = torch.cat([g.detach().flatten() for g in gradients] or [torch.empty(0)]).abs()
    nonzero = values[values > 0]
    if not len(values):
        return {}
    if not len(nonzero):
        return {"zero": 1.0}
    smallest, largest = torch.aminmax(nonzero)
    return {
        **{f"lost/{name}": mean_where(nonzero.to(d) == 0) for name, d in FORMATS.items()},
        "zero": 1 - len(nonzero) / len(values),
        "gradient/smallest": smallest.item(),
        "gradient/largest": largest.item(),
    }


def mean_where(marked: Tensor, where: Tensor | None = None) -> float:
    """Take the mean of booleans.

    Args:
        marked: booleans of any shape, true only where ``where`` is.
        where: those that count, of the same shape; None for all.

    Returns:
        The share of those that count which are marked.

    >>> mean_where(torch.tensor([True, False, False]), where=torch.tensor([True, True, False]))
    0.5
    """
    count = marked.numel() if where is None else where.sum()
    return (marked.sum() / count).item()
