"""Hints in messages."""

from __future__ import annotations

from truerisk.core.errors import MOST, suggest


def test_a_hint_does_not_list_a_whole_folder():
    names = [f"{i:03}" for i in range(MOST + 7)]
    hint = suggest("zzz", names)
    assert hint.startswith("known: 000, ") and hint.endswith(f"{MOST - 1:03}, … (7 more)")
    assert suggest("zzz", names[:MOST]).endswith(f"{MOST - 1:03}")
