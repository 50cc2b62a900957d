#!/usr/bin/env bash
# numpy 1.26.4, numpy 2.4.6 beside it
#
# Guess:  isclose takes a tolerance for each value, as it broadcasts all else.
# Seen:   with 1.26.4 it does as long as all values are finite, and raises a ValueError as soon as one is nan or
#         infinite: it compares the finite ones alone, with the tolerances of all. 2.4.6 does not.
# So:     with numpy before 2, compare once for each tolerance, and take each value's answer.
#
# Output seen:
#   numpy 1.26.4: finite [True, False], with a nan ValueError
#   numpy 2.4.6: finite [True, False], with a nan [True, False, True]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > finding.py <<'EOF'
import sys

import numpy as np


def compare(values, others, tolerances):
    try:
        return np.isclose(values, others, rtol=0, atol=tolerances, equal_nan=True).tolist()
    except ValueError as error:
        return type(error).__name__


one, other, within = np.array([1.0, 1.0, np.nan]), np.array([1.1, 1.1, np.nan]), np.array([0.2, 0.01, 0.01])
finite, mixed = compare(one[:2], other[:2], within[:2]), compare(one, other, within)
print(f"numpy {np.__version__}: finite {finite}, with a nan {mixed}")
assert finite == [True, False]
assert str(mixed) == sys.argv[1], "isclose with a tolerance for each value behaves otherwise now"
EOF
for pair in "1.26.4:ValueError" "2.4.6:[True, False, True]"; do
  "${PYTHON:-python3}" -m venv --clear venv
  venv/bin/pip install --quiet "numpy==${pair%%:*}"
  venv/bin/python finding.py "${pair#*:}"
done
