"""The training loop: the update step, written out, and what feeds, saves, watches and stops it.

It trains what others have built; `restore_recipe` is who builds where Lightning opens a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truerisk.data import DataInfo
    from truerisk.recipe import Recipe

# assigned by the package, as what builds stands above
restore_recipe: Callable[[Mapping[str, Any], Mapping[str, Any] | None], tuple[Recipe, DataInfo]]
