#!/usr/bin/env bash
# torch 2.9.0, on a CPU with a C++ compiler
#
# Guess:  what torch.compile makes of fused attention has the gradient that attention has.
# Seen:   in float32 it has; in float64 the forward pass is right, and the backward pass raises. The
#         same call without torch.compile has a gradient in float64. torch 2.13.0 has one either way.
# So:     compile in float32, or leave float64 to the version after.
#
# Output seen:
#   torch 2.9.0
#   float32, as it is:  a gradient
#   float32, compiled:  a gradient
#   float64, as it is:  a gradient
#   float64, compiled:  expected scalar type Double but found Float
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.9.0 setuptools numpy
cat > finding.py <<'EOF'
import torch
from torch.nn.functional import scaled_dot_product_attention

print("torch", torch.__version__.partition("+")[0])


def attend(q, k, v):
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def describe_gradient(function, dtype):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 8, 4, generator=draw, dtype=dtype) for _ in range(3))
    q.requires_grad_()
    try:
        function(q, k, v).sum().backward()
    except RuntimeError as error:
        return str(error)
    return "a gradient" if q.grad.isfinite().all() else "no numbers"


seen = {}
for dtype in (torch.float32, torch.float64):
    for how, function in (("as it is", attend), ("compiled", torch.compile(attend))):
        name = f"{str(dtype).removeprefix('torch.')}, {how}: "
        seen[name] = describe_gradient(function, dtype)
        print(name, seen[name])
*others, last = seen.values()
assert set(others) == {"a gradient"}
assert last == "expected scalar type Double but found Float", "it has a gradient now"
EOF
venv/bin/python -W ignore finding.py
