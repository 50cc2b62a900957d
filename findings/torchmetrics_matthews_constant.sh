#!/usr/bin/env bash
# torchmetrics 1.9.0, scikit-learn 1.9.1, torch 2.13.0
#
# Guess:  Matthews' correlation is 0 where all predictions are alike: they tell nothing of the classes.
# Seen:   torchmetrics puts a small number in the place of each empty cell and keeps the counts beside it, so
#         that the value has a sign, by which class is said: +0.051 and −0.051 of 114 samples, 0.016 of 1,140.
#         scikit-learn has 0.
# So:     a classifier that always says the same may beat one that has learned a little; take 0 where the
#         product of the margins is 0.
#
# Output seen:
#   torchmetrics 1.9.0, scikit-learn 1.9.1
#   114 samples: always the larger class 0.051, the smaller -0.051, scikit-learn 0.000
#   1140 samples: always the larger class 0.016, the smaller -0.016, scikit-learn 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 torchmetrics==1.9.0 scikit-learn==1.9.1
cat > finding.py <<'EOT'
import sklearn
import torch
import torchmetrics
from sklearn.metrics import matthews_corrcoef
from torchmetrics.functional.classification import binary_matthews_corrcoef

print(f"torchmetrics {torchmetrics.__version__}, scikit-learn {sklearn.__version__}")
for times in (1, 10):
    truth = torch.tensor([0] * 42 + [1] * 72).repeat(times)
    larger, smaller = torch.ones_like(truth), torch.zeros_like(truth)
    up, down = (float(binary_matthews_corrcoef(same, truth)) for same in (larger, smaller))
    known = matthews_corrcoef(truth, larger)
    print(f"{len(truth)} samples: always the larger class {up:.3f}, the smaller {down:.3f}, scikit-learn {known:.3f}")
    assert known == 0
    assert up > 0.01 and down < -0.01, "predictions that are alike have no correlation now"
EOT
venv/bin/python -W ignore finding.py
