#!/usr/bin/env bash
# scipy 1.17.1 (OpenBLAS 0.3.30 in its wheel), numpy 2.4.6, threadpoolctl 3.8.0
#
# Guess:  minimize(method="L-BFGS-B") of three numbers is arithmetic for one core.
# Seen:   each of its iterations has small matrices factored by LAPACK, which OpenBLAS shares among all
#         cores: the second thread computes as long as the first, waiting included, for the same iterations
#         and the same minimum. On a machine whose cores are taken the whole takes several times as long.
#         In scipy 1.14, whose L-BFGS-B brought its own routines, there is one thread.
# So:     a bootstrap of small fits goes into threadpool_limits(1, "blas"), or under OPENBLAS_NUM_THREADS=1;
#         a pool of processes that fit needs it all the more.
#
# Needs:  Linux, two cores or more.
# Output seen:
#   scipy 1.17.1: 3959 iterations, 2 threads computed; under threadpool_limits(1): 3959 iterations, 1 thread
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet scipy==1.17.1 numpy==2.4.6 threadpoolctl==3.8.0
cat > finding.py <<'EOF'
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import scipy
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits


def loss(x):
    value = ((x - 1) ** 2).sum() + (x[0] * x[1]) ** 2
    return value, 2 * (x - 1) + 2 * x[0] * x[1] * np.array([x[1], x[0], 0.0])


def work():
    """Ticks that each thread of this process has computed."""
    parts = (task.read_text().rpartition(")")[2].split() for task in Path("/proc/self/task").glob("*/stat"))
    return sorted(int(part[11]) + int(part[12]) for part in parts)


def fit(limit):
    with limit:
        starts = (np.array([3.0, -2.0, 5.0]) + i / 100 for i in range(300))
        return sum(minimize(loss, x, jac=True, method="L-BFGS-B").nit for x in starts)


limit = threadpool_limits(1, "blas") if sys.argv[1:] else nullcontext()
before = sum(work()[:-1])  # of all but the busiest
iterations = fit(limit)
others = sum(work()[:-1]) - before
threads = 1 + (others > 10)  # a tenth of a second
print(f"{scipy.__version__} {iterations} {threads}")
EOF
read -r version iterations threads < <(venv/bin/python finding.py)
read -r _ alone one < <(venv/bin/python finding.py limited)
echo "scipy $version: $iterations iterations, $threads threads computed;" \
  "under threadpool_limits(1): $alone iterations, $one thread"
[ "$threads" = 2 ] && [ "$one" = 1 ] && [ "$iterations" = "$alone" ]
