#!/usr/bin/env bash
# wandb 0.31.0, offline
#
# Guess:  a run that is finished leaves the process as it was.
# Seen:   sys.exit and sys.excepthook stay wandb's after `finish()`: the innermost frame of every later
#         SystemExit lies in wandb's package, also of one that the caller's own code asks for.
# So:     who asked for an end is not the innermost frame of its traceback: pass over wandb's.
#
# Output seen:
#   wandb 0.31.0
#   sys.exit before a run: innermost frame in finding.py
#   sys.exit after the run is finished: innermost frame in exit_hooks.py
#   sys.excepthook is as it was: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet wandb==0.31.0
cat > finding.py <<'EOF'
import os
import sys
import traceback
from pathlib import Path

import wandb


def find_innermost():
    try:
        sys.exit(3)
    except SystemExit as end:
        return Path(traceback.extract_tb(end.__traceback__)[-1].filename).name


print("wandb", wandb.__version__)
hook = sys.excepthook
before = find_innermost()
wandb.init(project="finding", mode="offline", settings=wandb.Settings(silent=True)).finish()
after = find_innermost()
print("sys.exit before a run: innermost frame in", before)
print("sys.exit after the run is finished: innermost frame in", after)
print("sys.excepthook is as it was:", sys.excepthook is hook)
assert before == "finding.py"
assert after == "exit_hooks.py" and sys.excepthook is not hook, "wandb puts back what it replaced now"
EOF
venv/bin/python -W ignore finding.py
