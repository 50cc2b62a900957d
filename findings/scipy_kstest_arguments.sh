#!/usr/bin/env bash
# scipy 1.18.1, numpy 2.4.6 (1.17.1 beside it)
#
# Guess:  kstest(x, "norm", (mean, std)) tests against the normal distribution with these numbers, as its
#         documentation has it.
# Seen:   it raises a TypeError of ndtr; without numbers, and with a function or a frozen distribution's cdf in
#         the name's place, it works. In 1.17.1 the first form works too.
# So:     hand it stats.norm(mean, std).cdf.
#
# Output seen:
#   scipy 1.17.1: by name and numbers ok, by a frozen distribution ok
#   scipy 1.18.1: by name and numbers TypeError, by a frozen distribution ok
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > finding.py <<'EOF'
import sys

import numpy as np
import scipy
from scipy import stats

x = np.random.default_rng(0).normal(size=50)


def try_call(*arguments):
    try:
        return "ok" if 0 <= stats.kstest(x, *arguments).pvalue <= 1 else "odd"
    except TypeError as error:
        return type(error).__name__


named, frozen = try_call("norm", (0, 2)), try_call(stats.norm(0, 2).cdf)
print(f"scipy {scipy.__version__}: by name and numbers {named}, by a frozen distribution {frozen}")
assert frozen == "ok"
assert named == sys.argv[1], "kstest by name and numbers behaves otherwise now"
EOF
for pair in 1.17.1:ok 1.18.1:TypeError; do
  "${PYTHON:-python3}" -m venv --clear venv
  venv/bin/pip install --quiet "scipy==${pair%%:*}" numpy==2.4.6
  venv/bin/python -W ignore finding.py "${pair##*:}"
done
