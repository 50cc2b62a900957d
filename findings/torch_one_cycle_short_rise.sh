#!/usr/bin/env bash
# torch 2.13.0
#
# Guess:  OneCycleLR with pct_start=0.1 over 10 steps rises for one step, as 0.2 rises for two.
# Seen:   wherever pct_start * total_steps is exactly 1 the constructor raises ZeroDivisionError: the rise
#         is counted in intervals, pct_start * total_steps - 1 of them, and none is left. A rise shorter
#         than one step is accepted, and starts at the peak.
# So:     a warm-up given as a share meets this on short runs only, such as a trial run of 100 steps with
#         pct_start=0.01.
#
# Output seen:
#   torch 2.13.0
#   10 steps, pct_start 0.2: rates start at 0.0400
#   10 steps, pct_start 0.1: ZeroDivisionError: float division by zero
#   100 steps, pct_start 0.01: ZeroDivisionError: float division by zero
#   99 steps, pct_start 0.01: rates start at 1.0000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import torch

print("torch", torch.__version__.split("+")[0])


def first_rate(steps, share):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    try:
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=steps, pct_start=share
        )
    except ZeroDivisionError as error:
        return f"ZeroDivisionError: {error}"
    return f"rates start at {optimizer.param_groups[0]['lr']:.4f}"


for steps, share, fails in ((10, 0.2, 0), (10, 0.1, 1), (100, 0.01, 1), (99, 0.01, 0)):
    result = first_rate(steps, share)
    print(f"{steps} steps, pct_start {share}: {result}")
    assert result.startswith("ZeroDivisionError") == bool(fails)
EOF
venv/bin/python -W ignore finding.py
