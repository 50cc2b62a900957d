#!/usr/bin/env bash
# torch 2.13.0 (CPU)
#
# Guess:  making and stepping an optimizer of torch.optim loads the optimizer; TorchDynamo comes with
#         torch.compile.
# Seen:   the first parameter group given to any Optimizer loads it, and sympy in its train, only to mark that
#         method as one that is not to be traced; each step asks for it again. That is some 800 modules,
#         0.9 s and 70 MiB, in every process, a quarter to a third of what a small run takes in all.
# So:     a process is measured after its first step, not after its imports; and where many short runs each
#         have a process, it pays to update weights by a loop of one's own.
#
# Output seen:
#   torch 2.13.0+cpu: without an optimizer: 0 modules of torch._dynamo, sympy 0
#   torch 2.13.0+cpu: SGD made: 93 modules of torch._dynamo, sympy 419; 823 modules and 71 MiB more
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import sys
from pathlib import Path

import torch


def count(name):
    return sum(m == name or m.startswith(name + ".") for m in sys.modules)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


weight = torch.nn.Parameter(torch.ones(3))
(weight**2).sum().backward()
with torch.no_grad():
    weight -= 0.1 * weight.grad
modules, memory = len(sys.modules), resident()
print(f"torch {torch.__version__}: without an optimizer: {count('torch._dynamo')} modules of torch._dynamo, "
      f"sympy {count('sympy')}")
before = count("torch._dynamo")
torch.optim.SGD([weight], lr=0.1)
print(f"torch {torch.__version__}: SGD made: {count('torch._dynamo')} modules of torch._dynamo, "
      f"sympy {count('sympy')}; {len(sys.modules) - modules} modules and {resident() - memory:.0f} MiB more")
sys.exit(not (before == 0 and count("torch._dynamo") > 50 and count("sympy") > 50))
EOF
venv/bin/python finding.py
