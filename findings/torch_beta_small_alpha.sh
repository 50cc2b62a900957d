#!/usr/bin/env bash
# torch 2.13.0, numpy 2.4.6
#
# Guess:  torch.distributions.Beta(a, a) with a small a draws numbers near 0 or 1, as mixup's papers have it.
# Seen:   its gammas underflow, and where both do the draw is exactly 1/2: in 25 % of the draws at a = 1e-3
#         and in 99 % at 1e-5, in double precision. Mixup's weakest setting becomes its strongest.
#         NumPy's beta, which goes by logarithms, has none.
# So:     below a = 0.01 take ln G(a) = ln G(a + 1) + ln(U)/a, and the sigmoid of the difference of two.
#
# Output seen:
#   torch 2.13.0, numpy 2.4.6
#   a = 0.1: exactly 1/2 in 0 % (numpy 0 %)
#   a = 0.001: exactly 1/2 in 25 % (numpy 0 %)
#   a = 1e-05: exactly 1/2 in 99 % (numpy 0 %)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import numpy as np
import torch

print(f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}")
torch.manual_seed(0)
halves = {}
for a in (0.1, 1e-3, 1e-5):
    alpha = torch.tensor(a, dtype=torch.float64)
    ours = torch.distributions.Beta(alpha, alpha).sample((20_000,))
    theirs = np.random.default_rng(0).beta(a, a, 20_000)
    halves[a] = float((ours == 0.5).double().mean())
    print(f"a = {a:g}: exactly 1/2 in {100 * halves[a]:.0f} % (numpy {100 * (theirs == 0.5).mean():.0f} %)")
assert halves[0.1] == 0
assert halves[1e-5] > 0.9, "Beta draws by logarithms now"
EOF
venv/bin/python -W ignore finding.py
