#!/usr/bin/env bash
# hydra-core 1.3.8, Python 3.14
#
# Guess:  a Hydra that installs on a Python, and imports there, runs there.
# Seen:   every program with @hydra.main ends in "ValueError: badly formed help string" before it reads its
#         command line. Python 3.14 looks at the help of each option as it is added, and that of Hydra's
#         --shell-completion is an object that becomes a text when it is shown. `compose` works, as it makes
#         no parser. Python 3.13 has no such check.
# So:     Hydra 1.4 there, or switch the check off while the parser is made, as 1.4 does:
#         argparse.ArgumentParser._check_help = lambda parser, action: None
#
# Output seen (PYTHON=python3.14):
#   hydra-core 1.3.8, Python 3.14
#   as it is: ValueError: badly formed help string
#   without the check: x is 3
set -euo pipefail
python=${PYTHON:-python3.14}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 14))' 2>/dev/null; then
  echo "name a Python of 3.14 or above: PYTHON=… bash $0"
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$python" -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8
cat > program.py <<'EOF'
import argparse
import sys

import hydra

if sys.argv.pop(1) == "without":
    argparse.ArgumentParser._check_help = lambda parser, action: None


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    print("x is", cfg.x)


main()
EOF
cat > finding.py <<'EOF'
import subprocess
import sys

import hydra

seen = {}
for how in ("as", "without"):
    command = [sys.executable, "program.py", how, "+x=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    seen[how] = (done.stdout + done.stderr).strip().splitlines()[-1]
print(f"hydra-core {hydra.__version__}, Python {sys.version_info[0]}.{sys.version_info[1]}")
print("as it is:", seen["as"])
print("without the check:", seen["without"])
assert seen["as"] == "ValueError: badly formed help string", "the parser is made now"
assert seen["without"] == "x is 3"
EOF
venv/bin/python -W ignore finding.py
