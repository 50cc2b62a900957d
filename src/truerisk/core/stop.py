"""Why a run ended before its time, as a value that programs read and people are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Stop(NamedTuple):
    """The end of a run that did not take all its steps.

    | kind                | detail                                                                 |
    |---------------------|------------------------------------------------------------------------|
    | `gradient_norm`     | `norm` and its `bound`                                                 |
    | `relative_decrease` | how far J has `fallen`, to which `objective`, and the share's `bound`  |
    | `patience`          | nothing: early stopping's own numbers stand in the configuration       |
    | `halving`           | `epoch` of the rung, `risk`, its `rank` `among` the cells, `kept` ones |
    | `divergence`        | `what` and its `fault`                                                 |
    | `callback`          | nothing: a Lightning callback has asked for the end                    |
    | `time`              | nothing: `trainer.max_time` stands in the configuration                |
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
        detail = {"what": "validation risk", **self.detail}
        return SENTENCES[self.kind].format(**detail, step=self.step)


SENTENCES = {
    "gradient_norm": "‖∇J‖ = {norm:.3g} is at most stop.gradient_norm={bound:g}",
    "relative_decrease": (
        "J fell by {fallen:.3g} to {objective:.6g}, "
        "a share of at most stop.relative_decrease={bound:g}"
    ),
    # the usual end of a run, which needs no explanation
    "patience": "",
    "callback": "a callback has set trainer.should_stop",
    "time": "trainer.max_time has passed",
    "halving": (
        "successive halving: at epoch {epoch} its {what} {risk:.4g} is number {rank} "
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


class RunInProgress(Protocol):
    """What a rule may look at of a run.

    Attributes:
        recipe: its parts.
        state: where it stands: epoch, step, and what the epoch's steps have shown.
    """

    recipe: Any
    state: Any


class StopRule:
    """Decide after an epoch whether a run ends; a subclass overrides what it needs.

    | method   | called                                                                        |
    |----------|-------------------------------------------------------------------------------|
    | `start`  | when a run begins or goes on                                                  |
    | `check`  | with what is measured of the initial weights; may raise ConfigError           |
    | `judge`  | after the steps of an epoch, before it is measured                            |
    | `report` | after a measurement, for all runs measured together, before any is decided on |
    | `decide` | after a measurement                                                           |

    The same rules act on one run and on each run of a stack.
    """

    key = ""
    """The name of its state in a checkpoint, as Lightning would name a callback's."""

    def start(self, run: RunInProgress) -> None:
        """Learn where the run stands."""

    def check(self, values: Mapping[str, float]) -> None:
        """Look at the names of what is measured."""

    def judge(self, run: RunInProgress) -> Stop | None:
        """Decide on the steps of an epoch; it is measured in any case."""
        return None

    def report(self, run: RunInProgress, values: Mapping[str, float]) -> None:
        """Tell others what was measured."""

    def decide(self, run: RunInProgress, values: Mapping[str, float]) -> Stop | None:
        """Decide on what was measured.

        Args:
            run: how the run stands.
            values: what was measured after this epoch, by name.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what decides in a run that is taken up again."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
