#!/usr/bin/env bash
# torch 2.13.0, CPU, float32 (the same with 2.9.0)
#
# Guess:  scaled_dot_product_attention takes a kernel that can do what is asked of it, and falls back to
#         plain operations where a fused one has no such derivative.
# Seen:   on a CPU the fused kernel is taken by shapes and dropout alone: a second derivative through it, and a
#         forward-mode one, raise; vmap works by a loop with a warning. With dropout, or with SDPBackend.MATH,
#         the same calls work.
# So:     a Hessian-vector product of a transformer works while its dropout is above 0 and fails at 0: take
#         SDPBackend.MATH around curvature, and around what is stacked by vmap.
#
# Output seen:
#   torch 2.13.0
#   fused: gradient ok, Hessian product RuntimeError, forward mode NotImplementedError
#   dropout of 0.1: gradient ok, Hessian product ok, forward mode ok
#   SDPBackend.MATH: gradient ok, Hessian product ok, forward mode ok
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import torch
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)
q, k, v = (torch.randn(2, 2, 8, 4) for _ in range(3))


def try_derivatives(dropout):
    def loss(q):
        return scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True).square().sum()

    def first():
        torch.autograd.grad(loss(q.requires_grad_()), q)

    def second():
        (gradient,) = torch.autograd.grad(loss(q.requires_grad_()), q, create_graph=True)
        torch.autograd.grad(gradient.sum(), q)

    def forward():
        jvp(loss, (q.detach(),), (torch.ones_like(q),))

    seen = []
    for call in (first, second, forward):
        try:
            call()
            seen.append("ok")
        except (RuntimeError, NotImplementedError) as error:
            seen.append(type(error).__name__)
    return seen


def tell(name, seen):
    print(f"{name}: gradient {seen[0]}, Hessian product {seen[1]}, forward mode {seen[2]}")
    return seen


print("torch", torch.__version__.split("+")[0])
fused = tell("fused", try_derivatives(0.0))
dropped = tell("dropout of 0.1", try_derivatives(0.1))
with sdpa_kernel(SDPBackend.MATH):
    plain = tell("SDPBackend.MATH", try_derivatives(0.0))
assert fused == ["ok", "RuntimeError", "NotImplementedError"], "the fused kernel has more derivatives now"
assert dropped == plain == ["ok", "ok", "ok"]
EOF
venv/bin/python -W ignore finding.py
