"""In a process of its own, as nothing that is loaded can be taken back."""

import subprocess
import sys

import torch

from truerisk.core.without_dynamo import leave_dynamo_out

OTHERS = {"LBFGS", "Muon", "SparseAdam"}
"""Optimizers of torch's that take closures, matrices or sparse gradients alone."""


def train_each():
    """Weights after two steps of each optimizer, its state taken and given back between them."""
    ends = {}
    for name, kind in vars(torch.optim).items():
        if not isinstance(kind, type) or kind is torch.optim.Optimizer or name in OTHERS:
            continue
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = kind([weight], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (weight**3).sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        ends[name] = weight.tolist()
    return ends


def check():
    leave_dynamo_out()
    alone = train_each()
    assert len(alone) > 9 and [1.0, -2.0] not in alone.values()
    assert "torch._dynamo" not in sys.modules
    import torch._dynamo

    assert train_each() == alone
    # as torch itself has it by now: a function that TorchDynamo leaves out
    zeros = torch.optim.Optimizer.zero_grad.__wrapped__
    assert zeros.__dynamo_disable._torchdynamo_disable


def test_optimizers_step_alike_with_and_without_it():
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    check()
