"""Recurrent layers of many members at once, written out on stacked tensors.

torch has no batching rule for its own (pytorch/pytorch#134606). Formulas and the order of the gates
are those of ``torch.nn``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from truerisk.core.recurrent_cells import elman_state, gru_state, lstm_state

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Tensor, Tensor | None], State]


def _multiply(weight: Tensor, bias: Tensor | None, h: Tensor) -> Tensor:
    """Compute W h + b for h [M, width, n]."""
    return torch.bmm(weight, h) if bias is None else torch.baddbmm(bias[..., None], weight, h)


def _step_elman(act: Callable[[Tensor], Tensor], x: Tensor, s: State, w: Tensor, b: Any) -> State:
    return (elman_state(x, _multiply(w, b, s[0]), act),)


def _step_gru(x: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
    (h,) = state
    return (gru_state(x, _multiply(w, b, h), h, dim=1),)


def _step_lstm(x: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
    h, c = state
    return lstm_state(x + _multiply(w, b, h), c, dim=1)


def _run_layer(cell: Cell, x: Tensor, start: State, weights: Sequence[Any], both: bool) -> Any:
    """Run one layer: x [K, steps, features, n] → states [K, steps, directions · width, n]."""
    # the backward direction is K more members, which read the steps from the other end
    members, steps = x.shape[:2]
    runs = [x, x.flip(1)] if both else [x]
    half = len(weights) // len(runs)
    sides = [weights[i * half : (i + 1) * half] for i in range(len(runs))]
    w, u = (torch.cat([side[i] for side in sides]) for i in (0, 1))
    b, c = (torch.cat([side[i] for side in sides]) if half == 4 else None for i in (2, 3))
    # the inputs of all steps by one product; the states need one a step
    inputs = torch.cat(runs).permute(0, 2, 1, 3).flatten(2)
    driven = _multiply(w, b, inputs).unflatten(2, (steps, -1))
    state, states = start, []
    # Taken apart at once: indexing step by step would make each gradient as large as all steps.
    for x_t in driven.unbind(2):
        state = cell(x_t, state, u, c)
        states.append(state[0])
    out = torch.stack(states, 1).split(members)
    return (torch.cat([out[0], out[1].flip(1)], 2) if both else out[0]), state


def run_layers(
    cell: Cell,
    x: Tensor,
    starts: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    both: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Run a recurrent layer of ``torch.nn``, with the arguments of its function in ``torch``.

    Args:
        cell: what takes one step.
        x: [K, n, steps, features], or [K, steps, n, features].
        starts: first states, [K, layers · directions, n, width] each.
        weights: W and U, with two biases where there are any, of each layer and direction.
        biases: whether there are biases.
        layers: how many layers.
        dropout: the probability of dropout between layers.
        training: whether dropout is on.
        both: whether the layers run in both directions.
        batch_first: whether samples come before steps.

    Returns:
        Outputs in the layout of ``x``, and the last states in that of ``starts``.

    Raises:
        NotImplementedError: dropout between the layers.
    """
    if dropout and training:
        raise NotImplementedError("dropout between recurrent layers")
    h = x.permute(0, 2, 3, 1) if batch_first else x.permute(0, 1, 3, 2)
    sides, each = (2 if both else 1), (4 if biases else 2)
    last: list[State] = []
    for layer in range(layers):
        rows = range(layer * sides, (layer + 1) * sides)
        start = tuple(torch.cat([s[:, row].transpose(1, 2) for row in rows]) for s in starts)
        own = weights[layer * sides * each : (layer + 1) * sides * each]
        h, state = _run_layer(cell, h, start, own, both)
        last.append(state)
    out = h.permute(0, 3, 1, 2) if batch_first else h.permute(0, 1, 3, 2)
    return out, *(_join_last_states(part, len(x)) for part in zip(*last, strict=True))


def _join_last_states(parts: Sequence[Tensor], members: int) -> Tensor:
    """Stack the last states of the layers: [K, layers · directions, n, width]."""
    sides = [side.transpose(1, 2) for part in parts for side in part.split(members)]
    return torch.stack(sides, 1)


gru = partial(run_layers, _step_gru)
lstm = partial(run_layers, _step_lstm)
rnn_tanh = partial(run_layers, partial(_step_elman, torch.tanh))
rnn_relu = partial(run_layers, partial(_step_elman, torch.relu))
