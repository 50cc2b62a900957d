#!/usr/bin/env bash
# lightning 2.6.6 (Fabric), torch 2.13.0
#
# Guess:  sampler.set_epoch(5) before an epoch decides its order, also of a loader from
#         fabric.setup_dataloaders; Fabric adds nothing in a single process.
# Seen:   each iter() of Fabric's loader calls set_epoch itself, with the number of times that it has been
#         iterated, on any sampler that has such a method, in a single process too. What the caller has
#         set is overwritten.
# So:     a run that resumes at epoch 5 and sets it trains on the orders of epochs 0, 1, 2 again; a pass
#         over the loader for anything else (statistics, a range test) shifts all later epochs.
#
# Output seen:
#   lightning 2.6.6
#   torch's loader, set to epochs 5 and 6: orders of epochs 5 and 6
#   Fabric's loader, set to epochs 5 and 6: orders of epochs 0 and 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 lightning==2.6.6 numpy==2.4.6
cat > finding.py <<'EOF'
import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

print("lightning", lightning.__version__)
dataset = TensorDataset(torch.arange(50))


def build_loader():
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=0)
    return sampler, DataLoader(dataset, batch_size=50, sampler=sampler)


sampler, _ = build_loader()
orders = []
for epoch in range(10):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))


def find_epochs(sampler, loader):
    epochs = []
    for epoch in (5, 6):
        sampler.set_epoch(epoch)
        (batch,) = next(iter(loader))
        epochs.append(orders.index(batch.tolist()))
    return epochs


plain = find_epochs(*build_loader())
fabric = lightning.Fabric(accelerator="cpu", devices=1)
sampler, loader = build_loader()
wrapped = find_epochs(sampler, fabric.setup_dataloaders(loader))
print("torch's loader, set to epochs 5 and 6: orders of epochs {} and {}".format(*plain))
print("Fabric's loader, set to epochs 5 and 6: orders of epochs {} and {}".format(*wrapped))
assert plain == [5, 6]
assert wrapped == [0, 1], "Fabric leaves the caller's epoch alone now"
EOF
venv/bin/python -W ignore finding.py
