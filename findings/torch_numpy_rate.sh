#!/usr/bin/env bash
# torch 2.13.0, numpy 2.4.6
#
# Guess:  a checkpoint of an optimizer's state_dict, whose learning rate is a float, can be read back with
#         torch.load(weights_only=True).
# Seen:   np.exp(-0.1) in LambdaLR's function gives np.float64, a subclass of float. The scheduler puts it
#         into the param group, torch.save takes it without a word, and torch.load refuses the whole file.
#         math.exp gives the same rate, and a file that loads. So for lr=np.logspace(-3, -1, 3)[0].
# So:     float(...) around whatever NumPy or SciPy computes for a rate; the loss is seen when resuming.
#
# Output seen:
#   torch 2.13.0, numpy 2.4.6
#   math.exp: rate 0.09048, saved, loads
#   numpy.exp: rate 0.09048, saved, UnpicklingError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import io
import math
import pickle

import numpy as np
import torch

print(f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}")


def save_and_load(exp):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: exp(-0.1 * step))
    optimizer.step()
    scheduler.step()
    rate = optimizer.param_groups[0]["lr"]
    assert isinstance(rate, float) and math.isclose(rate, 0.1 * math.exp(-0.1))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        return f"rate {rate:.5f}, saved, UnpicklingError"
    return f"rate {rate:.5f}, saved, loads"


results = {"math.exp": save_and_load(math.exp), "numpy.exp": save_and_load(np.exp)}
for name, result in results.items():
    print(f"{name}: {result}")
assert results["math.exp"].endswith("loads")
assert results["numpy.exp"].endswith("UnpicklingError"), "such a file loads now"
EOF
venv/bin/python -W ignore finding.py
