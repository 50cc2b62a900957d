#!/usr/bin/env bash
# pandas 3.1.1
#
# Guess:  a CSV whose rows end in the delimiter is read with an empty last column, or refused.
# Seen:   read_csv takes the first field of every row for the index, and every column has the numbers of its
#         right neighbour; the last is NaN. No warning. So for blanks: sep=" " and two blanks between fields.
# So:     index_col=False, and a name for each field that is too many; or count the fields beforehand.
#
# Output seen:
#   pandas 3.1.1
#   read_csv: a=[10, 20] b=[100, 200] c=[nan, nan], index [1, 2]
#   index_col=False: a=[1, 2] b=[10, 20] c=[100, 200]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pandas==3.1.1
cat > finding.py <<'EOF'
import io
import warnings

import pandas as pd

warnings.simplefilter("error")
print(f"pandas {pd.__version__}")
text = "a,b,c\n1,10,100,\n2,20,200,\n"
shifted = pd.read_csv(io.StringIO(text))
columns = " ".join(f"{name}={shifted[name].tolist()}" for name in shifted)
print(f"read_csv: {columns}, index {shifted.index.tolist()}")
right = pd.read_csv(io.StringIO(text), index_col=False)
print("index_col=False:", " ".join(f"{name}={right[name].tolist()}" for name in right))
assert right.a.tolist() == [1, 2]
assert shifted.a.tolist() == [10, 20], "the first field is no index any more"
EOF
venv/bin/python finding.py
