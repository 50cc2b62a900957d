#!/usr/bin/env bash
# torch 2.13.0, CPU (x86-64 with AVX2 or AVX-512), float32
#
# Guess:  an elementwise function of an element depends on that element alone.
# Seen:   torch.sigmoid of the same number differs in its last bits with where the number stands and with
#         the tensor's layout: a vectorized kernel takes full vectors, and a scalar one, with an exponential
#         of its own, what is left over. torch.tanh and torch.exp have no such seam.
# So:     to split a tensor of gates before or after the sigmoid, to take one sample out of a batch,
#         or to fuse two calls into one changes bits, though no sum is reordered.
#
# Output seen:
#   torch 2.13.0
#   sigmoid: 96 of 2560 entries change when the two halves of the columns are taken one by one
#   sigmoid: 96 of 2560 entries change when each is taken alone
#   tanh: 0 of 2560 and 0 of 2560
#   exp: 0 of 2560 and 0 of 2560
#   largest difference: 2 units in the last place
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import torch

torch.set_num_threads(1)
print("torch", torch.__version__.split("+")[0])
x = torch.randn(64, 40, generator=torch.Generator().manual_seed(0))
changed = {}
for function in (torch.sigmoid, torch.tanh, torch.exp):
    whole = function(x)
    halves = torch.cat([function(x[:, :20]), function(x[:, 20:])], 1)
    alone = torch.stack([function(number) for number in x.flatten()]).view_as(x)
    by_halves, one_by_one = int((whole != halves).sum()), int((whole != alone).sum())
    changed[function.__name__] = by_halves, one_by_one
    if function is torch.sigmoid:
        ulps = (whole.view(torch.int32) - alone.view(torch.int32)).abs().max().item()
        print(f"sigmoid: {by_halves} of {x.numel()} entries change when the two halves of the "
              "columns are taken one by one")
        print(f"sigmoid: {one_by_one} of {x.numel()} entries change when each is taken alone")
    else:
        print(f"{function.__name__}: {by_halves} of {x.numel()} and {one_by_one} of {x.numel()}")
print(f"largest difference: {ulps} units in the last place")
assert min(changed["sigmoid"]) > 0, "sigmoid no longer depends on the position"
assert changed["tanh"] == changed["exp"] == (0, 0)
EOF
venv/bin/python -W ignore finding.py
