#!/usr/bin/env bash
# tensorboard 2.16.0 and 2.16.2
#
# Guess:  a patch release changes no requirements, and TensorBoard needs no TensorFlow.
# Seen:   2.16.0 requires tf-keras-nightly without a version, and that one (2.23.0.dev2026102618) requires
#         tf-nightly: TensorFlow of today. 2.16.2 does not.
# So:     whoever resolves to the lowest versions of `tensorboard>=2.16` installs all of it: ask for
#         2.16.2 or above.
#
# Output seen:
#   tensorboard 2.16.0 requires tf-keras-nightly: True
#   tensorboard 2.16.2 requires tf-keras-nightly: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
for version in 2.16.0 2.16.2; do
  venv/bin/pip install --quiet --no-deps --target "$version" "tensorboard==$version"
done
cat > finding.py <<'EOF'
from importlib.metadata import distributions


def requires_nightly(folder):
    (found,) = distributions(path=[folder])
    return any(text.startswith("tf-keras-nightly") for text in found.requires)


old, new = requires_nightly("2.16.0"), requires_nightly("2.16.2")
print("tensorboard 2.16.0 requires tf-keras-nightly:", old)
print("tensorboard 2.16.2 requires tf-keras-nightly:", new)
assert old and not new, "it is another requirement now"
EOF
venv/bin/python finding.py
