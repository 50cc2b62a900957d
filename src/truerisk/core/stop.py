"""Why a run ended before its time, as a value that programs read and people are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Stop(NamedTuple):
    """The end of a run that did not take all its steps.

    | kind                | detail                                                                 |
    |---------------------|------------------------------------------------------------------------|
    | `gradient_norm`     | `norm` and its `bound`                                                 |
    | `relative_decrease` | how far J has `fallen`, to which `objective`, and the share's `bound`  |
    | `patience`          | nothing: early stopping's own numbers stand in the configuration       |
    | `halving`           | `epoch` of the rung, `risk`, its `rank` `among` the cells, `kept` ones |
    | `divergence`        | `what` and its `fault`                                                 |
    | `signal`            | `name`                                                                 |

    Args:
        kind: what ended the run.
        step: optimizer steps that it had taken.
        detail: plain numbers and texts.
    """

    kind: str
    step: int
    detail: dict[str, Any]

    def describe(self) -> str:
        """Say it in a sentence; empty for early stopping, which every run may end by."""
        return SENTENCES[self.kind].format(**self.detail, step=self.step)


SENTENCES = {
    "gradient_norm": "‖∇J‖ = {norm:.3g} is at most stop.gradient_norm={bound:g}",
    "relative_decrease": (
        "J fell by {fallen:.3g} to {objective:.6g}, "
        "a share of at most stop.relative_decrease={bound:g}"
    ),
    "patience": "",
    "halving": (
        "successive halving: at epoch {epoch} its validation risk {risk:.4g} is number {rank} "
        "of {among}, and the best {kept} go on"
    ),
    "divergence": "step {step}: {what} {fault}",
    "signal": "{name}",
}


def read_stop(status: Mapping[str, Any]) -> Stop | None:
    """Read why a run ended from its ``status.json``.

    Args:
        status: the content of ``status.json``.

    Returns:
        None for a run that took all its steps, is still going, or failed.
    """
    record = status.get("stop")
    if record is not None:
        return Stop(**record)
    # Before 0.2 the sentence was all there was; such folders still take part in reports and sweeps.
    text = status.get("reason", "")
    if text.startswith("successive halving: at epoch "):
        return Stop("halving", 0, {"epoch": int(text.split()[4])})
    return None
