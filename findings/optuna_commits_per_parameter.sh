#!/usr/bin/env bash
# optuna 5.0.0, SQLAlchemy 2.1.9, SQLite in memory
#
# Guess:  a trial whose distributions are all handed to `ask` is written to a database in one transaction.
# Seen:   each parameter is a transaction of its own, asked for one by one or all at once: a trial of P
#         parameters takes P + 6 commits, and about 2 P + 30 statements.
# So:     on a database over a network a trial of many parameters costs that many round trips; and a process
#         that is killed may leave a trial with some of its parameters.
#
# Output seen:
#   optuna 5.0.0
#   1 parameter: 7 commits
#   5 parameters: 11 commits
#   20 parameters: 26 commits
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet optuna==5.0.0 SQLAlchemy==2.1.9
cat > finding.py <<'EOF'
import optuna
import sqlalchemy
from optuna.distributions import FloatDistribution

optuna.logging.set_verbosity(optuna.logging.ERROR)
print("optuna", optuna.__version__)
seen = {}
for size in (1, 5, 20):
    storage = optuna.storages.RDBStorage("sqlite:///:memory:")
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(0))
    space = {f"x{k}": FloatDistribution(0, 1) for k in range(size)}
    study.tell(study.ask(space), 1.0)  # what the first trial does once
    commits = []
    sqlalchemy.event.listen(storage.engine, "commit", commits.append)
    study.tell(study.ask(space), 1.0)
    seen[size] = len(commits)
    print(f"{size} parameter{'s' * (size > 1)}: {len(commits)} commits")
assert seen[20] - seen[5] == 15 and seen[5] - seen[1] == 4, "parameters share a transaction now"
EOF
venv/bin/python -W ignore finding.py
