#!/usr/bin/env bash
# numpy 2.4.6
#
# Guess:  a memory-mapped array that goes to another process goes as what it is, a name of a file, and is
#         mapped there too.
# Seen:   all of its numbers are pickled, however large the file. What is read back is of the class memmap
#         and says so when it is asked, but has no file: it lies in the process's own memory.
# So:     a data set that maps a file is copied into every worker of a DataLoader that is not forked
#         (Python 3.14 does not fork by default, nor do macOS and Windows): pickle the path, and map the
#         file anew (__reduce__ or __setstate__). isinstance(x, numpy.memmap) does not tell that memory
#         is shared; x.filename is not None does.
#
# Output seen:
#   numpy 2.4.6
#   a map of 8000000 bytes is pickled in 8 MB
#   read back: memmap, file None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet numpy==2.4.6
cat > finding.py <<'EOF'
import pickle

import numpy as np

print("numpy", np.__version__)
np.arange(1_000_000, dtype="<i8").tofile("numbers")
numbers = np.memmap("numbers", dtype="<i8", mode="r")
assert numbers.filename is not None
text = pickle.dumps(numbers)
print(f"a map of {numbers.nbytes} bytes is pickled in {len(text) // 1_000_000} MB")
back = pickle.loads(text)
print(f"read back: {type(back).__name__}, file {back.filename}")
assert len(text) > numbers.nbytes and isinstance(back, np.memmap) and back.filename is None
EOF
venv/bin/python finding.py
