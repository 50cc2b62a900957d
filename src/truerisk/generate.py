"""Texts that a language model continues: a look at what a run has learned."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, UserError, suggest
from truerisk.result import load_run

LOST = "\ufffd"
"""What stands for bytes that are no character, and for characters that training lacks."""
SEEDS = 2**64
"""How many seeds torch tells apart."""
DEFAULTS: Mapping[str, Any] = {
    "prompt": "",
    "tokens": 300,
    "temperature": 1.0,
    "top_k": None,
    "seed": 0,
}
"""The keys of ``truerisk generate``, and what they are where they are not given."""


def generate(
    folder: str | Path,
    prompt: str = "",
    tokens: int = 300,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """Draw a continuation of a text, token by token, from a run's best weights.

    Args:
        folder: of a run on ``data=text``.
        prompt: how the document begins; "" leaves that to the model.
        tokens: how many are drawn at most; a document may end before.
        temperature: what the scores are divided by; 0 takes the most likely token each time.
        top_k: so many of the most likely tokens are drawn from; None for all.
        seed: of the draws.

    Returns:
        The prompt and what follows it.

    Raises:
        ConfigError: the run knows no texts, or a number is out of range.
    """
    return prompt + "".join(iterate_texts(folder, prompt, tokens, temperature, top_k, seed))


def iterate_texts(
    folder: str | Path,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> Iterator[str]:
    """Yield what follows a prompt, piece by piece; see `generate`.

    Args:
        folder: of a run on ``data=text``.
        prompt: how the document begins.
        tokens: how many are drawn at most.
        temperature: what the scores are divided by.
        top_k: so many of the most likely tokens are drawn from; None for all.
        seed: of the draws.
    """
    import torch

    from truerisk.data.tokenizer import BOUNDARY, load_tokenizer

    check_int("tokens", tokens)
    check_float("temperature", temperature, 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise ConfigError(f"seed must be a whole number from 0 to 2**64 - 1, not {seed!r}")
    run = load_run(folder)
    model = run.model
    state = getattr(model, "encoder", None) or {}
    if "tokenizer" not in state:
        raise ConfigError(
            f"generate: {folder} has learned no texts: it takes a run on data=text, as of "
            "truerisk train experiment=gpt_characters"
        )
    tokenizer = load_tokenizer(state)
    if top_k is not None:
        top_k = min(check_int("top_k", top_k), tokenizer.size)
    if lost := sorted(
        {c for c in prompt if LOST in tokenizer.decode(tokenizer.encode(c).tolist())} - {LOST}
    ):
        said = ", ".join(map(repr, lost))
        print(f"prompt: training documents lack {said}: read as unknown", file=sys.stderr)
    context: int = model.input_shape[0]  # type: ignore[index, assignment]
    drawn = [BOUNDARY, *tokenizer.encode(prompt).tolist()]
    start, draw, told = len(drawn), torch.Generator().manual_seed(seed), ""
    for _ in range(tokens):
        with torch.no_grad():
            scores = model(torch.tensor([drawn[-context:]]))[0, -1].double()
        if top_k is not None:
            scores[scores < scores.topk(top_k).values[-1]] = -torch.inf
        if temperature:
            chances = (scores / temperature).softmax(0)
            token = int(torch.multinomial(chances, 1, generator=draw))
        else:
            token = int(scores.argmax())
        if token == BOUNDARY:  # the document ends
            break
        drawn.append(token)
        text = tokenizer.decode(drawn[start:])
        # a character may take several tokens, and is � until the last of them
        if not text.endswith(LOST):
            yield text[len(told) :]
            told = text
    yield tokenizer.decode(drawn[start:])[len(told) :]


def read_options(given: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` as the options of `generate`.

    Args:
        given: of a command line.

    Raises:
        UserError: there is no such key, or its value is no number.

    >>> read_options(["prompt=def f", "tokens=20", "top_k=null"])
    {'prompt': 'def f', 'tokens': 20, 'temperature': 1.0, 'top_k': None, 'seed': 0}
    """
    options = dict(DEFAULTS)
    kinds = {"prompt": str, "temperature": float}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in DEFAULTS:
            raise UserError(f"generate: {text}: it takes KEY=VALUE; {suggest(key, DEFAULTS)}")
        if value == "null" and key == "top_k":
            continue
        kind = kinds.get(key, int)
        try:
            options[key] = kind(value)
        except ValueError:
            raise UserError(f"generate: {key}={value}: give a number") from None
    return options
