"""A function of the weights alone, to watch an optimizer on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from truerisk.core.errors import ConfigError
from truerisk.task.task import Part, Task

if TYPE_CHECKING:
    from torch import Tensor


class TestFunction(Task):
    """There are no samples: the model's value f(w) is what is minimised, and it is exact."""

    __test__ = False  # pytest collects classes of this name
    name = "function"
    rank = 9
    phrase = "a test function"
    losses = ("value",)
    has_samples = False
    score_title = "value"
    val_title = "the function's value"
    summary_title = "the lowest point of the path"
    figure_name = "path.png"
    progress: ClassVar = {"distance": "distance", "value": "risk/val"}
    table_rows: ClassVar = {
        "risk/val": "value",
        "distance": "distance to the nearest known minimum",
    }
    refusals: ClassVar = {
        "samples": (
            "regularizer={name} acts on samples or layers, and a test function has neither: "
            "leave {name} out"
        )
    }

    def is_exact(self, split: str) -> bool:
        """Tell that f(w) is known without error, on whichever split it was measured."""
        return True

    def count_targets(self, x: Any, y: Tensor, class_names: Any) -> int:
        """Return 1, the value.

        Args:
            x: one empty sample.
            y: a target that is not looked at.
            class_names: none.
        """
        return 1

    def select_regularizers(self, regularizers: Mapping[str, Part]) -> dict[str, Part]:
        """Return those that act on a vector of weights, without those that compare two risks.

        Training and validation risk are one number here, so there is nothing to stop early for;
        and an optimizer that overshoots must not be stopped at the top of a hill.

        Args:
            regularizers: by name.

        Raises:
            ConfigError: a regularizer acts on samples or layers, or leaves out vectors.
        """
        import torch

        acting: dict[str, Any] = {
            name: r
            for name, r in regularizers.items()
            if not r.needs_validation  # type: ignore[attr-defined]
        }
        for name, regularizer in super().select_regularizers(acting).items():
            # penalties on parameters sort them by rules, under which w may fall out
            groups = getattr(regularizer, "groups", None)
            if groups is not None and not groups({"w": torch.zeros(1)}):
                raise ConfigError(
                    f"regularizer={name} leaves out vectors, as which it takes biases, and a test "
                    f"function has only one, w: set regularizer.{name}.rules=[]"
                )
        return acting

    def refuse_diagnostic(self, diagnostic: Any) -> str | None:
        """Return why a diagnostic of layers or samples cannot look at a function."""
        if diagnostic.on_functions:
            return None
        return "it looks at layers and samples, and a test function has neither: leave it out"
