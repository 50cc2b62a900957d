"""The claims on sharpness, and what turns them."""

from __future__ import annotations

from truerisk.verdicts import write_grids

PART = (
    "seed=0",
    write_grids(
        {
            **{"data.batch_size": 500, "trainer.max_epochs": 1, "model.activation": "tanh"},
            "diagnostics.flatness.every.epochs": 1,
        }
    ),
)


def test_no_claim_fails(at):
    """The quick study has what scaling layers does."""
    done = at.quick("sharp_minima")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_a_network_without_relu(at):
    """Scaled layers are another function then."""
    assert at.study("sharp_minima", "same_function", *PART) == "does not hold"
