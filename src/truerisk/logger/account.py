"""Whether runs go to a W&B account or stay on the disk."""

from __future__ import annotations

import os

MODES = ("auto", "online", "offline", "disabled")


def resolved(mode: str) -> str:
    """What ``auto`` comes to: the user's own setting, else online if logged in, else offline.

    Looks at the environment, W&B's settings files and the netrc file; asks neither the network nor
    the user.
    """
    if mode != "auto":
        return mode
    import wandb

    own = os.environ.get("WANDB_MODE")
    if own:
        return own
    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    if settings.mode not in (None, "online"):
        return str(settings.mode)
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
