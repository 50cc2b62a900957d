#!/usr/bin/env bash
# torch 2.13.0
#
# Guess:  torch.save on a disk without room raises the system's OSError, as open() and write() do.
# Seen:   it raises RuntimeError("... unexpected pos ..."), which is no OSError. To a path, nothing says
#         what the system answered; to a file object, the OSError is in __context__ alone.
# So:     `except OSError` around torch.save does not meet a full disk. Save into memory (io.BytesIO) and
#         write the bytes oneself, or give a file object and look at __context__.
#
# A limit on the size of files (RLIMIT_FSIZE) stands for the full disk; it is refused in the same place.
#
# Output seen:
#   torch 2.13.0
#   path: RuntimeError, context RuntimeError('basic_ios::clear: iostream error')
#   file object: RuntimeError, context OSError(27, 'File too large')
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import resource
import signal

import torch

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
print(f"torch {torch.__version__.split('+')[0]}")


def save(target):
    try:
        torch.save({"weight": torch.zeros(100_000)}, target)
    except Exception as error:
        return error


to_path = save("path.pt")
with open("object.pt", "wb", buffering=0) as file:
    to_object = save(file)
for name, error in {"path": to_path, "file object": to_object}.items():
    print(f"{name}: {type(error).__name__}, context {error.__context__!r}")
    assert type(error) is RuntimeError, "torch.save raises something else now"
    assert "unexpected pos" in str(error), "torch.save says something else now"
assert not isinstance(to_path.__context__, OSError), "the system's reason is there for a path now"
assert isinstance(to_object.__context__, OSError), "the system's reason is not in __context__"
EOF
venv/bin/python -W ignore finding.py
