#!/usr/bin/env bash
# torch 2.13.0
#
# Guess:  ReduceLROnPlateau(threshold_mode="rel", threshold=1e-4), torch's default, wants the metric to fall
#         by a ten-thousandth of the best one's size, whatever its sign.
# Seen:   it compares with best * (1 - threshold), which lies above a negative best: a metric that stands
#         still below zero, or rises a little every epoch, counts as better each time. The rate never falls.
# So:     a subclass whose margin is threshold * |best|, or threshold_mode="abs", where a loss can be negative.
#
# Output seen:
#   torch 2.13.0
#   1.0, constant: rate 0.01 after 9 epochs
#   -1.0, constant: rate 0.1 after 9 epochs
#   -1.0, rising to -0.99952: rate 0.1 after 9 epochs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import torch

print(f"torch {torch.__version__.split('+')[0]}")


def last_rate(metrics):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=6, threshold=1e-4)
    for metric in metrics:
        scheduler.step(metric)
    return round(optimizer.param_groups[0]["lr"], 6)


curves = {
    "1.0, constant": [1.0] * 9,
    "-1.0, constant": [-1.0] * 9,
    "-1.0, rising to -0.99952": [-1.0 + 6e-5 * t for t in range(9)],
}
rates = {name: last_rate(curve) for name, curve in curves.items()}
for name, rate in rates.items():
    print(f"{name}: rate {rate:g} after 9 epochs")
assert rates["1.0, constant"] == 0.01
assert rates["-1.0, constant"] == 0.1, "the margin has another sign now"
assert rates["-1.0, rising to -0.99952"] == 0.1
EOF
venv/bin/python -W ignore finding.py
