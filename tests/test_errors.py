"""Hints in messages."""

from __future__ import annotations

from truerisk.core.errors import MOST, describe_fault, suggest


def test_a_hint_does_not_list_a_whole_folder():
    names = [f"{i:03}" for i in range(MOST + 7)]
    hint = suggest("zzz", names)
    assert hint.startswith("known: 000, ") and hint.endswith(f"{MOST - 1:03}, … (7 more)")
    assert suggest("zzz", names[:MOST]).endswith(f"{MOST - 1:03}")


def test_all_that_an_error_says_is_shown_above_its_lines():
    try:
        raise ValueError("shapes differ:\ngot 3\nneed 4")
    except ValueError as error:
        told = describe_fault(error).splitlines()
    assert told[:3] == ["ValueError: shapes differ:", "  got 3", "  need 4"] and len(told) == 4
    assert "test_errors.py, line " in told[3]
    try:
        raise ValueError("\n".join(f"key {i}" for i in range(1000)))
    except ValueError as error:
        told = describe_fault(error).splitlines()
    assert len(told) < 20 and "  key 999" in told and "more lines]" in "".join(told)
