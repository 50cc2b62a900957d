#!/usr/bin/env bash
# torch 2.13.0
#
# Guess:  torch.manual_seed sets a number, wherever it is called from.
# Seen:   it formats the whole Python stack once for each kind of accelerator that is not in use (CUDA, XPU, MTIA;
#         in builds for the CPU alone, too), so as to tell later where the seed came from. Below 60 frames, as within
#         a training loop, that takes some hundred times as long as seeding the generator itself.
# So:     where one seeds in a loop, seed torch.default_generator, and the devices that are in use.
#
# Output seen:
#   torch 2.13.0: the stack is formatted 3 times by torch.manual_seed, 0 times by default_generator.manual_seed
#   60 frames down: 997 µs and 1.4 µs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > finding.py <<'EOF'
import time
import traceback

import torch


def descend(frames, call):
    return call() if frames == 0 else descend(frames - 1, call)


def measure_seconds(seed):
    before = time.perf_counter()
    for _ in range(200):
        seed(0)
    return (time.perf_counter() - before) / 200


def count_stacks(seed):
    counted, format_stack = [], traceback.format_stack
    traceback.format_stack = lambda *given, **named: counted.append(1) or format_stack(*given, **named)
    seed(0)
    traceback.format_stack = format_stack
    return len(counted)


assert not torch.cuda.is_available(), "this is about a machine without an accelerator in use"
everywhere, here = torch.manual_seed, torch.default_generator.manual_seed
stacks = count_stacks(everywhere), count_stacks(here)
print(
    f"torch {torch.__version__.split('+')[0]}: the stack is formatted {stacks[0]} times by torch.manual_seed,"
    f" {stacks[1]} times by default_generator.manual_seed"
)
slow, fast = (descend(60, lambda seed=seed: measure_seconds(seed)) for seed in (everywhere, here))
print(f"60 frames down: {slow * 1e6:.0f} µs and {fast * 1e6:.1f} µs")
assert stacks == (3, 0), "the stack is formatted another number of times now"
assert slow > 50 * fast, "torch.manual_seed is nearly as fast as its generator now"
draws = []
for seed in (everywhere, here):
    seed(5)
    draws.append(torch.rand(3).tolist())
assert draws[0] == draws[1]
EOF
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
venv/bin/python finding.py
