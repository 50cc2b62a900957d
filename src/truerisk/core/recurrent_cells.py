"""One step of an Elman, LSTM and GRU cell, from the two products W x + b and U h + c.

Whoever calls them takes the products, in whatever layout is fast there; what follows is written
here once. Gates stand along ``dim`` in the order of ``torch.nn``: i f g o (LSTM), r z n (GRU).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def elman_state(
    from_input: Tensor,
    from_state: Tensor,
    activation: Callable[[Tensor], Tensor],
    residual: Tensor | None = None,
) -> Tensor:
    """Compute h' = φ(W x + b + U h + c), or h + φ(…) for a residual cell.

    Args:
        from_input: W x + b, [..., width, ...].
        from_state: U h + c, of the same shape.
        activation: φ.
        residual: h, where the cell is residual.

    Returns:
        h', of the same shape. Source: Elman, "Finding Structure in Time", 1990.

    >>> import torch
    >>> elman_state(torch.tensor([1.0]), torch.tensor([-3.0]), torch.relu, torch.tensor([5.0]))
    tensor([5.])
    """
    new = activation(from_input + from_state)
    if residual is None:
        return new
    return residual + new


def lstm_state(gates: Tensor, c: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Compute c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c').

    Args:
        gates: W x + b + U h + c, with i, f, g and o one after the other along ``dim``.
        c: the cell's memory, a quarter as large there.
        dim: the dimension of the features.

    Returns:
        (h', c'), of the shape of ``c``. Source: Hochreiter & Schmidhuber, "Long Short-Term Memory",
        1997, with the forget gate of Gers, Schmidhuber & Cummins, 2000.

    >>> import torch
    >>> [t.item() for t in lstm_state(torch.zeros(4), torch.ones(1))]  # half of what was there
    [0.231058..., 0.5]
    """
    i, f, g, o = gates.chunk(4, dim)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_state(from_input: Tensor, from_state: Tensor, h: Tensor, dim: int = -1) -> Tensor:
    """Compute h' = (1 − z) n + z h with z = σ(z_x + z_h) and n = tanh(n_x + σ(r_x + r_h) n_h).

    Args:
        from_input: W x + b, with r_x, z_x and n_x one after the other along ``dim``.
        from_state: U h + c, likewise.
        h: the state before, a third as large there.
        dim: the dimension of the features.

    Returns:
        h', of the shape of ``h``. Source: Cho et al., "Learning Phrase Representations using RNN
        Encoder–Decoder", 2014, with the reset gate r after the product, as in ``torch.nn.GRU``.

    >>> import torch
    >>> gru_state(torch.zeros(3), torch.zeros(3), torch.ones(1))
    tensor([0.5000])
    """
    width = h.shape[dim]
    (gates_x, n_x), (gates_h, n_h) = (
        part.split((2 * width, width), dim) for part in (from_input, from_state)
    )
    # one sigmoid for r and z: one kernel where steps are small
    r, z = (gates_x + gates_h).sigmoid().chunk(2, dim)
    n = (n_x + r * n_h).tanh()
    # (1 − z) n + z h with a product less
    return n + z * (h - n)
