"""What the number formats of a run lose."""

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

RUN = {
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
        """Look at the gradient that is there, and show the samples to the model."""
        precision = snapshot.run.precision
        scaler = snapshot.run.loss_scaler
        found = _of_gradient(snapshot.gradients.values())
        if "mixed" in precision:
            scale = 1.0 if scaler is None else scaler.get_scale()
            found["lost/run"] = self._lost_in_the_run(snapshot, scale)
        largest = self._largest(snapshot)
        found |= {f"activation/{name}": value for name, value in largest.items()}
        limit = torch.finfo(RUN.get(precision, torch.float32)).max
        found["activation_share"] = max(largest.values(), default=0.0) / limit
        return found | ({} if scaler is None else {"loss_scale": scaler.get_scale()})

    def _lost_in_the_run(self, snapshot: Snapshot, scale: float) -> float:
        with cudnn.flags(enabled=False):  # its recurrent layers have no backward in eval mode
            with snapshot.run.forward_context():
                run = self._gradient(snapshot, scale)
            full = self._gradient(snapshot, 1.0)
        return share((run == 0) & (full != 0), of=full != 0)

    def _gradient(self, snapshot: Snapshot, scale: float) -> Tensor:
        params = {n: p.detach().clone().requires_grad_() for n, p in snapshot.params.items()}
        (batch,) = snapshot.batches(self.samples, most=self.samples)
        risk = scale * snapshot.objective.losses(snapshot.objective.outputs(params, batch.x), batch)
        parts = torch.autograd.grad(
            risk.mean(), list(params.values()), allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])

    def _largest(self, snapshot: Snapshot) -> dict[str, float]:
        """The largest output of every layer without layers inside, in magnitude."""
        seen: dict[str, Tensor] = {}

        def watch(name: str) -> Any:
            def hook(_layer: nn.Module, _args: Any, output: Any) -> None:
                first = output[0] if isinstance(output, tuple) else output
                top = first.detach().abs().amax().float()
                seen[name] = torch.maximum(seen.get(name, top), top)

            return hook

        leaves = [(n, m) for n, m in snapshot.model.named_modules() if n and not any(m.children())]
        hooks = (layer.register_forward_hook(watch(name)) for name, layer in leaves)
        snapshot.forward_samples(self.samples, hooks)
        tops = torch.stack(list(seen.values())).tolist() if seen else []
        return dict(zip(seen, tops, strict=True))

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Values of the gradient, what is lost of them, and the largest activations."""
        from truerisk.diagnostics.picture import layer_lines, level, lines, panels

        headings = ["|values| of the gradient", "share lost to underflow"]
        axes = panels(figure, table, [*headings, "largest |output|, by layer"], (1.2, 1, 1.2))
        ends = {"largest": "gradient/largest", "smallest": "gradient/smallest"}
        lines(axes[0], {k: table[n] for k, n in ends.items() if n in table})
        lost = {k: table[f"lost/{k}"] for k in (*FORMATS, "run") if f"lost/{k}" in table}
        lines(axes[1], lost, from_zero=True)
        layer_lines(axes[2], table, "activation")
        level(axes[0], 2.0**-24, "smallest of fp16")
        level(axes[2], 65504, "largest of fp16")


def _of_gradient(gradients: Iterable[Tensor]) -> dict[str, float]:
    """The range of a gradient's values, and what 16-bit formats would make zero."""
    values = torch.cat([g.detach().flatten() for g in gradients] or [torch.empty(0)]).abs()
    nonzero = values[values > 0]
    if not len(nonzero):
        return {"zero": 1.0} if len(values) else {}
    found = {f"lost/{k}": share(nonzero.to(d) == 0) for k, d in FORMATS.items()}
    found["zero"] = 1 - len(nonzero) / len(values)
    smallest, largest = torch.aminmax(nonzero)
    return found | {"gradient/smallest": smallest.item(), "gradient/largest": largest.item()}


def share(part: Tensor, of: Tensor | None = None) -> float:
    """How many of some are true: the mean of booleans, over those that ``of`` marks.

    >>> share(torch.tensor([True, False, False]), of=torch.tensor([True, True, False]))
    0.5
    """
    return (part.sum() / (part.numel() if of is None else of.sum())).item()
