#!/usr/bin/env bash
# scipy 1.17.1, numpy 2.4.6
#
# Guess:  scipy.io.arff reads a nominal value with a blank in it, quoted in the header and in the rows alike,
#         as Weka writes it.
# Seen:   It does where the first row has such a value. Where the first one is a later row, its quotes count
#         as part of it: ValueError: 'long one' value not in ('round', 'long one'); how rows are quoted is
#         taken from the first of them. Attributes of kind string are refused (NotImplementedError).
# So:     read the header, and let pandas read the rows as a CSV with that quotechar and na_values=["?"].
#
# Output seen:
#   scipy 1.17.1
#   quoted in row 1: [b'long one', b'round']
#   quoted in row 2: ValueError
#   string: NotImplementedError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet scipy==1.17.1 numpy==2.4.6
cat > finding.py <<'EOF'
import io

import scipy
from scipy.io import arff

print(f"scipy {scipy.__version__}")


def read(kind, *values):
    rows = "\n".join(f"1.5,{value}" for value in values)
    text = f"@relation r\n@attribute a numeric\n@attribute form {kind}\n@data\n{rows}\n"
    try:
        return arff.loadarff(io.StringIO(text))[0]["form"].tolist()
    except (ValueError, NotImplementedError) as error:
        return type(error).__name__


forms = "{round, 'long one'}"
results = {
    "quoted in row 1": read(forms, "'long one'", "round"),
    "quoted in row 2": read(forms, "round", "'long one'"),
    "string": read("string", "'some text'"),
}
for name, result in results.items():
    print(f"{name}: {result}")
assert results["quoted in row 1"] == [b"long one", b"round"]
assert results["quoted in row 2"] == "ValueError", "quoted values of later rows are read now"
EOF
venv/bin/python finding.py
