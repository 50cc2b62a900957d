"""Errors of tokens that hang together in documents."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from truerisk.data.documents import Documents
from truerisk.data.text_source import TextPacker
from truerisk.engine.measure import mark_samples
from truerisk.risk.estimate import GroupedEstimate, MeanEstimate
from truerisk.risk.intervals import student_bounds

LOSSES = torch.tensor([1.0, 0.5, 2.5], dtype=torch.float64)
"""Of a predictor that looks at nothing: the boundary, the likely letter, and the unlikely one."""
CORPORA, DOCUMENTS, CONTEXT = 200, 40, 16
LENGTHS = 20, 201


def draw_corpus(draw):
    """Documents of uneven length, each of which has its own share of the likely letter."""
    lengths = draw.integers(*LENGTHS, size=DOCUMENTS)
    shares = draw.uniform(size=DOCUMENTS)
    return ["".join(draw.choice(["a", "b"], n, p=[s, 1 - s])) for n, s in zip(lengths, shares)]


def pack(texts):
    documents = Documents(lambda: iter(texts), (CONTEXT,))
    packer = TextPacker(documents, "characters", 0)
    every = torch.arange(len(documents))
    packer.fit(every)
    packer.pack({"test": every})
    return packer.rows["test"].read_all()


def measure(texts):
    """Return the risk with its error by document, by sequence and by token."""
    _, y, owners = pack(texts)
    losses = LOSSES[(y - 1).clamp(min=0)]
    estimates = GroupedEstimate(DOCUMENTS), MeanEstimate(), MeanEstimate()
    estimates[0].update(losses, owners)
    estimates[1].update(losses.mean(1))
    estimates[2].update(losses)
    return [estimate.to_measured() for estimate in estimates]


def test_the_interval_by_document_covers_and_the_others_do_not():
    draw = np.random.default_rng(0)
    length = (LENGTHS[0] + LENGTHS[1] - 1) / 2
    true = (length * float(LOSSES[1:].mean()) + float(LOSSES[0])) / (length + 1)
    covered, widths = np.zeros(3), np.zeros(3)
    for _ in range(CORPORA):
        for k, measured in enumerate(measure(draw_corpus(draw))):
            low, high = student_bounds(measured)
            covered[k] += low < true < high
            widths[k] += high - low
    shares, widths = covered / CORPORA, widths / CORPORA
    assert 0.92 <= shares[0] <= 0.98
    # the table of docs/statistics.md
    assert shares == pytest.approx([0.945, 0.51, 0.215], abs=0.03)
    assert widths == pytest.approx([0.41, 0.14, 0.06], abs=0.005)


def test_each_token_counts_for_the_document_it_stands_in():
    texts = ["ab" * 9, "b" * 30, "aab" * 5, "a" * 20]
    x, y, owners = pack(texts)
    stream = torch.cat([x.flatten(), y[-1, -1:]])
    assert torch.equal(owners.flatten(), (x.flatten() == 0).cumsum(0) - 1)
    assert int((stream == 0).sum()) == len(owners.unique()) == 4
    losses = LOSSES[(y - 1).clamp(min=0)]
    whole, parts = GroupedEstimate(4), GroupedEstimate(4)
    whole.update(losses, owners)
    for k in range(len(losses)):  # in batches of any size
        parts.update(losses[k : k + 1], owners[k : k + 1])
    assert whole.to_measured() == pytest.approx(parts.to_measured())
    assert whole.to_measured().value == pytest.approx(float(losses.mean()))
    # a population counts sequences: of all of them nothing is left to err about
    assert whole.to_measured(len(x)).stderr == 0 < whole.to_measured(len(x) + 1).stderr


def test_a_part_of_the_samples_numbers_its_groups_anew():
    """Of a million documents, those that are measured alone take memory."""
    groups = torch.tensor([[0, 0], [0, 7], [7, 7], [90, 91]])
    data = SimpleNamespace(groups={"train": groups})
    recipe = SimpleNamespace(data=data, risk=SimpleNamespace(weighted=False))
    marks, count = mark_samples(recipe, "train", torch.tensor([1, 3]))
    assert count == 4
    assert marks(torch.tensor([3, 1]))[0].tolist() == [[2, 3], [0, 1]]
    assert mark_samples(recipe, "train")[1] == 92
