"""How attention is spread over what it may look at, and how large its logits are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

BATCH = 8
"""Samples in one pass: all pairs of 1024 tokens in 12 heads are 50 MB a sample."""


class Attention(Diagnostic):
    """The entropy of attention p = softmax(q·k/√d) by layer, and the largest logits.

    | number            | is                                                                    |
    |-------------------|-----------------------------------------------------------------------|
    | `entropy/<layer>` | mean of ``−Σ p log p / log m`` over samples, heads and places, of the |
    |                   | m > 1 places that each may look at: 1 where all count alike, 0 where  |
    |                   | one is all                                                            |
    | `logit/<layer>`   | the largest ``|q·k|/√d``, over the same                               |
    | `output`          | the largest output of the model, in absolute value                    |

    Entropy that collapses, and logits that grow without end, come before runs that diverge (Zhai et
    al. 2023, "Stabilizing Transformer Training by Preventing Attention Entropy Collapse"; Dehghani
    et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters", §3.1; of the outputs,
    Wortsman et al. 2024, "Small-scale proxies for large-scale Transformer training instabilities").
    With queries and keys normalized, logits stay below √d · max|gain of q| · max|gain of k|.

    A layer with attention is one with a method ``attention_logits``, which takes what its
    ``forward`` takes and returns logits [n, heads, queries, keys], −∞ where a query may not look.

    Args:
        every: when to look; see `Diagnostic`.
        samples: that are shown to the model.
    """

    def __init__(self, every: Mapping[str, Any] | None = None, samples: int = 32) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.attention.samples", samples)

    def refuse(self, recipe: Recipe) -> str | None:
        """Refuse models without a layer that tells its logits."""
        if find_attention(recipe.model):
            return None
        return (
            "the model has no layer with attention (gpt, vit, transformer, or one of your own with "
            "a method attention_logits): leave it out"
        )

    def look(self, snapshot: Snapshot) -> Values:
        """Take the samples through the model, and measure every layer with attention."""
        entropies: dict[str, list[Tensor]] = {}
        largest: dict[str, float] = {}
        top = 0.0

        def make_hook(name: str) -> Any:
            def hook(layer: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
                entropy, size = measure_attention(layer.attention_logits(*args, **options))
                # a layer may be called more than once
                entropies.setdefault(name, []).append(entropy)
                largest[name] = max(size, largest.get(name, 0.0))

            return hook

        with ExitStack() as stack:
            for name, layer in find_attention(snapshot.model).items():
                handle = layer.register_forward_pre_hook(make_hook(name), with_kwargs=True)
                stack.callback(handle.remove)
            with snapshot.run.forward_context(), torch.no_grad():
                for batch in snapshot.batches(BATCH, most=self.samples):
                    outputs = snapshot.model(batch.x)
                    top = max(float(outputs.abs().max()), top)
        values = {f"entropy/{n}": float(torch.cat(e).mean()) for n, e in entropies.items()}
        values |= {f"logit/{name}": size for name, size in largest.items()}
        return values | {"output": top}

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw entropies and logits over the steps, a line a layer, and the largest output."""
        from truerisk.diagnostics.history_plots import add_panels, draw_layers, draw_line

        headings = ["entropy, as a share of that of equal weights", "largest |q·k|/√d"]
        headings += ["largest output"]
        axes = add_panels(figure, table, headings, (1, 1, 0.8))
        draw_layers(axes[0], table, "entropy", from_zero=True)
        draw_layers(axes[1], table, "logit")
        draw_line(axes[2], table["output"])


def find_attention(model: nn.Module) -> dict[str, nn.Module]:
    """Find the layers of a model that tell the logits of their attention, by name."""
    return {n: m for n, m in model.named_modules() if hasattr(m, "attention_logits")}


def measure_attention(logits: Tensor) -> tuple[Tensor, float]:
    """Measure the entropy of attention, and its largest logit.

    Args:
        logits: [n, heads, queries, keys], −∞ where a query may not look.

    Returns:
        ``−Σ p log p / log m`` of each query that may look at m > 1 keys, one after another, and
        the largest ``|logit|``.

    >>> entropy, size = measure_attention(torch.tensor([[[[0.0, 0.0, 0.0], [90.0, -90.0, 0.0]]]]))
    >>> [round(share, 6) for share in entropy.tolist()], size
    ([1.0, 0.0], 90.0)
    """
    # entropies of few bits are no sum of 8-bit mantissas
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    visible = logits != -math.inf
    spread = torch.special.entr(logits.softmax(-1)).sum(-1)
    # where there is one key only, there is nothing to choose
    free = visible.sum(-1)
    shares = spread[free > 1] / free[free > 1].log()
    return shares, float(logits.masked_fill(~visible, 0.0).abs().max())
