#!/usr/bin/env bash
# scipy 1.17.1, numpy 2.4.6
#
# Guess:  scipy.io.arff reads a nominal value with a blank in it, quoted in the header and in the rows alike,
#         as Weka writes it.
# Seen:   the header's 'long one' is stored without its quotes, that of a row is looked up with them:
#         ValueError: "'long one'" value not in ('long one', 'round'). Quoted with "…" likewise.
#         Attributes of kind string are refused as well (NotImplementedError).
# So:     read the header, and let pandas read the rows as a CSV with that quotechar and na_values=["?"].
#
# Output seen:
#   scipy 1.17.1
#   quotes ': ValueError
#   quotes ": ValueError
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


def read(kind, value):
    text = f"@relation r\n@attribute a numeric\n@attribute form {kind}\n@data\n1.5,{value}\n"
    try:
        return str(arff.loadarff(io.StringIO(text))[0])
    except (ValueError, NotImplementedError) as error:
        return type(error).__name__


assert "round" in read("{'long one', round}", "round")
results = {f"quotes {q}": read(f"{{{q}long one{q}, round}}", f"{q}long one{q}") for q in "'\""}
results["string"] = read("string", "'some text'")
for name, result in results.items():
    print(f"{name}: {result}")
assert "Error" in results["quotes '"], "quoted values are read now"
EOF
venv/bin/python finding.py
