#!/usr/bin/env bash
# torch 2.13.0 beside numpy 2.4.6, CPU, float32
#
# Guess:  the mean of a column over the rows is a sum of the same numbers in the same order however many
#         columns stand beside it; so it is in numpy.
# Seen:   x[:, :b].mean(0) and x.mean(0)[:b] differ in the last bits for most columns, as the number of
#         columns decides how torch cuts the rows into partial sums; x[:, :b].sum(0) too.
# So:     means for a standardization that are computed block of columns by block of columns, or on a
#         table with one column more, are not those of the whole table.
#
# Output seen:
#   torch 2.13.0, numpy 2.4.6
#   1000 rows, the first 28 of 784 columns: torch changes 23 means, numpy 0
#   1000 rows, the first 20 of 40 columns: torch changes 15 means, numpy 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import numpy as np
import torch

torch.set_num_threads(1)
print(f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}")
for rows, columns, block in ((1000, 784, 28), (1000, 40, 20)):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    a = x.numpy()
    by_torch = int((x[:, :block].mean(0) != x.mean(0)[:block]).sum())
    by_numpy = int((a[:, :block].mean(0) != a.mean(0)[:block]).sum())
    print(f"{rows} rows, the first {block} of {columns} columns: torch changes {by_torch} means, "
          f"numpy {by_numpy}")
    torch.testing.assert_close(x[:, :block].mean(0), x.mean(0)[:block])
    assert by_torch > 0, "torch's means no longer depend on the other columns"
    assert by_numpy == 0, "numpy's means depend on the other columns now"
EOF
venv/bin/python -W ignore finding.py
