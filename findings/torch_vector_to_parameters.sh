#!/usr/bin/env bash
# torch 2.13.0
#
# Guess:  torch.nn.utils.vector_to_parameters copies the vector into the parameters ("Copy slices of a
#         vector into an iterable of parameters", says its documentation).
# Seen:   the parameters become views of the vector. A later step of an optimizer changes the vector that
#         was kept to come back to, and a change of the vector in place moves the model.
#         parameters_to_vector, its inverse, does copy.
# So:     w = vector.clone() for each point that a model is set to, or copy_ into each parameter.
#
# Output seen:
#   torch 2.13.0
#   the vector kept before training moved by 0.5 when SGD took a step
#   the model's weights after the vector was set to zero: all zero
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > finding.py <<'EOF'
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

print("torch", torch.__version__.split("+")[0])
model = torch.nn.Linear(3, 2)
start = parameters_to_vector(model.parameters()).detach()
with torch.no_grad():
    model.weight.add_(1.0)
assert not torch.equal(start, parameters_to_vector(model.parameters())), "not a copy this way"

vector_to_parameters(start, model.parameters())  # back to where it was
before = start.clone()
sum(p.sum() for p in model.parameters()).backward()
torch.optim.SGD(model.parameters(), lr=0.5).step()
moved = (start - before).abs().max().item()
print(f"the vector kept before training moved by {moved:.1f} when SGD took a step")
start.zero_()
zeros = bool((model.weight == 0).all())
print("the model's weights after the vector was set to zero:", "all zero" if zeros else "as before")
assert abs(moved - 0.5) < 1e-6 and zeros, "the parameters no longer share the vector's memory"
EOF
venv/bin/python -W ignore finding.py
