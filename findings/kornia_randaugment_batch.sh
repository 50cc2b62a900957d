#!/usr/bin/env bash
# kornia 0.9.0 with torch 2.13.0, CPU
#
# Guess:  RandAugment draws its operations for each image of a batch, as it does for each image of a data
#         set (Cubuk et al. 2020) and as same_on_batch=False, its default, reads.
# Seen:   the operations are drawn once a batch: all 64 images get the same one, and only its strength
#         and sign are each image's own. And ColorJitter refuses grey images.
# So:     a batch sees one operation, so that the gradient of a step is of few of them: regularizer=augment
#         draws operations for each sample, by torch alone.
#
# Output seen:
#   kornia 0.9.0, torch 2.13.0
#   operations drawn for 64 images: 1 in each of 20 batches, 11 over all of them
#   ColorJitter on (4, 1, 8, 8): ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 kornia==0.9.0
cat > finding.py <<'EOF'
import kornia
import torch
from kornia.augmentation import ColorJitter
from kornia.augmentation.auto import RandAugment

torch.manual_seed(0)
print(f"kornia {kornia.__version__}, torch {torch.__version__.split('+')[0]}")
augment, images = RandAugment(n=1, m=10), torch.rand(1, 3, 16, 16).expand(64, -1, -1, -1)
drawn = []
for _ in range(20):
    augment(images)
    drawn.append({part.name for part in augment._params})
print(f"operations drawn for {len(images)} images: {max(map(len, drawn))} in each of 20 batches, "
      f"{len(set.union(*drawn))} over all of them")
assert all(len(names) == 1 for names in drawn), "operations are each image's own now"
try:
    ColorJitter(0.2, 0.2, 0.2, 0.1, p=1.0)(torch.rand(4, 1, 8, 8))
except ValueError as error:
    print(f"ColorJitter on (4, 1, 8, 8): {type(error).__name__}")
else:
    raise AssertionError("ColorJitter takes grey images now")
EOF
venv/bin/python -W ignore finding.py
