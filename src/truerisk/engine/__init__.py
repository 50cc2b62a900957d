"""The training loop: the update step, written out, and what feeds, saves, watches and stops it."""
