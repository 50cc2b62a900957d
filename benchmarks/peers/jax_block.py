"""``python jax_block.py MODEL MEMBERS``: the same block in JAX, an epoch for every line it reads.

An epoch of all members is one jitted program: a scan over mini-batches, mapped over the members,
then the risks of validation and of as many training samples, and the best weights. It runs in an
environment of its own, with ``jax`` and ``optax``, and prints seconds of computing a member-step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import jax
import jax.numpy as jnp
import optax

LENGTH, CLASSES, TRAIN, VAL, BATCH = 40, 10, 3200, 800, 100
GRU_WIDTH, CHANNELS = 6, 25
Params = Any


def draw_linear(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    scale = inputs**-0.5
    w, b = jax.random.split(key)
    return {
        "w": jax.random.uniform(w, (inputs, outputs), minval=-scale, maxval=scale),
        "b": jax.random.uniform(b, (outputs,), minval=-scale, maxval=scale),
    }


def draw_mlp(widths: tuple[int, ...], key: jax.Array) -> Params:
    keys = jax.random.split(key, len(widths) - 1)
    return [draw_linear(k, a, b) for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)]


def apply_mlp(params: Params, x: jax.Array) -> jax.Array:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def draw_cnn1d(key: jax.Array) -> Params:
    keys = jax.random.split(key, 4)
    shapes = [(CHANNELS, 1, 5), (CHANNELS, CHANNELS, 3), (CHANNELS, CHANNELS, 3)]
    convolutions = [
        {
            "w": jax.random.uniform(k, s, minval=-1, maxval=1) * (s[1] * s[2]) ** -0.5,
            "b": jnp.zeros(s[0]),
        }
        for k, s in zip(keys, shapes, strict=False)
    ]
    return [*convolutions, draw_linear(keys[3], 5 * CHANNELS, CLASSES)]


def apply_cnn1d(params: Params, x: jax.Array) -> jax.Array:
    x = x[:, None, :]
    for layer in params[:-1]:
        x = jax.lax.conv_general_dilated(x, layer["w"], (2,), [(1, 1)])
        x = jax.nn.relu(x + layer["b"][:, None])
    return x.reshape(len(x), -1) @ params[-1]["w"] + params[-1]["b"]


def draw_gru(key: jax.Array) -> Params:
    """Two directions, stacked; gates in the order reset, update, new."""
    keys, width = jax.random.split(key, 3), GRU_WIDTH
    return {
        "w": jax.random.normal(keys[0], (2, 1, 3 * width)) * 0.4,
        "u": jax.random.normal(keys[1], (2, width, 3 * width)) * 0.4,
        "b": jnp.zeros((2, 3 * width)),
        "c": jnp.zeros((2, 3 * width)),
        "output": draw_linear(keys[2], 2 * width * LENGTH, CLASSES),
    }


def apply_gru(params: Params, x: jax.Array) -> jax.Array:
    both = jnp.stack([x, x[:, ::-1]])  # [directions, n, steps]
    # the part that no state has a share in is one product for all steps
    inputs = both[..., None] @ params["w"][:, None] + params["b"][:, None, None]

    def step(state: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = state @ params["u"] + params["c"][:, None]
        r1, z1, n1 = jnp.split(seen, 3, -1)
        r2, z2, n2 = jnp.split(own, 3, -1)
        r, z = jax.nn.sigmoid(r1 + r2), jax.nn.sigmoid(z1 + z2)
        state = (1 - z) * jnp.tanh(n1 + r * n2) + z * state
        return state, state

    start = jnp.zeros((2, len(x), GRU_WIDTH))
    _, states = jax.lax.scan(step, start, jnp.moveaxis(inputs, 2, 0))
    flat = jnp.moveaxis(states, (0, 1, 2), (1, 2, 0)).reshape(len(x), -1)
    return flat @ params["output"]["w"] + params["output"]["b"]


MODELS: dict[str, tuple[Callable[[jax.Array], Params], Callable[..., jax.Array]]] = {
    "MLP 40-100-10": (partial(draw_mlp, (LENGTH, 100, CLASSES)), apply_mlp),
    "MLP 40-100-100-10": (partial(draw_mlp, (LENGTH, 100, 100, CLASSES)), apply_mlp),
    "softmax regression": (partial(draw_mlp, (LENGTH, CLASSES)), apply_mlp),
    "CNN1D": (draw_cnn1d, apply_cnn1d),
    "GRU": (draw_gru, apply_gru),
}


def main() -> None:
    draw, forward = MODELS[sys.argv[1]]
    members = int(sys.argv[2])
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (TRAIN + VAL, LENGTH))
    y = jax.random.randint(keys[1], (TRAIN + VAL,), 0, CLASSES)
    adam = optax.adam(1e-3)

    def risk(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(forward(params, x), y)
        return losses.mean()

    def train(carry: Any, index: jax.Array) -> tuple[Any, jax.Array]:
        params, moments = carry
        loss, gradient = jax.value_and_grad(risk)(params, x[index], y[index])
        updates, moments = adam.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), loss

    def epoch(params: Params, moments: Any, best: Any, key: jax.Array) -> tuple[Any, ...]:
        order = jax.random.permutation(key, TRAIN).reshape(-1, BATCH)
        (params, moments), losses = jax.lax.scan(train, (params, moments), order)
        measured = risk(params, x[TRAIN:], y[TRAIN:])
        subset = risk(params, x[:VAL], y[:VAL])
        better = measured < best[0]
        kept = jax.tree.map(lambda old, new: jnp.where(better, new, old), best[1], params)
        best = (jnp.minimum(measured, best[0]), kept)
        return params, moments, best, (losses.mean(), measured, subset)

    together = jax.jit(jax.vmap(epoch), donate_argnums=(0, 1))
    params = jax.vmap(draw)(jax.random.split(keys[2], members))
    moments = jax.vmap(adam.init)(params)
    best = (jnp.full(members, jnp.inf), jax.tree.map(jnp.copy, params))
    for number, _ in enumerate(sys.stdin):
        order = jax.random.split(jax.random.fold_in(keys[3], number), members)
        began = process_time()
        params, moments, best, found = together(params, moments, best, order)
        jax.block_until_ready((params, moments, best, found))
        print((process_time() - began) / (TRAIN // BATCH * members), flush=True)


if __name__ == "__main__":
    main()
