#!/usr/bin/env bash
# pandas 3.1.1
#
# Guess:  thousands="\u202f", the blank that French and SI style put between thousands, makes 12 345 a number,
#         or is refused as the C parser refuses other signs of more than a byte.
# Seen:   the C parser, which is the default, passes over it without a word: the column stays texts. The Python
#         parser reads numbers. So for a no-break space and the curly apostrophe of Switzerland.
# So:     engine="python" where the sign is not ASCII.
#
# Output seen:
#   pandas 3.1.1
#   '\xa0': c ['12\xa0345'], python [12345]
#   '\u202f': c ['12\u202f345'], python [12345]
#   '\u2019': c ['12\u2019345'], python [12345]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pandas==3.1.1
cat > finding.py <<'EOF'
import io
import warnings

import pandas as pd

warnings.simplefilter("error")
print(f"pandas {pd.__version__}")
for sign in ("\xa0", "\u202f", "\u2019"):
    text = f"a;b\n12{sign}345;1\n"
    found = {
        engine: pd.read_csv(io.StringIO(text), sep=";", thousands=sign, engine=engine).a.tolist()
        for engine in ("c", "python")
    }
    print(f"{ascii(sign)}: c {ascii(found['c'])}, python {found['python']}")
    assert found["python"] == [12345]
    assert found["c"] == [f"12{sign}345"], "the C parser reads it now"
EOF
venv/bin/python finding.py
