#!/usr/bin/env bash
# lightning 2.6.6, mlflow-skinny 3.17.2
#
# Guess:  MLFlowLogger(tracking_uri=...) records to that store and leaves alone what else in the process
#         uses MLflow; it has a client of its own.
# Seen:   its first record calls mlflow.set_tracking_uri for the whole process. From then on mlflow.log_metric
#         and whatever child processes log (through the environment's MLFLOW_TRACKING_URI) go to the
#         logger's store, though the caller has chosen another one before.
# So:     two runs in one process with a store each, or a script that logs its own numbers beside a Trainer,
#         write to the wrong place; a client made with an explicit tracking_uri is safe.
#
# Output seen:
#   lightning 2.6.6, mlflow 3.17.2
#   a logger is made: later records go to own.db
#   it has recorded one number: later records go to logger.db, those of child processes to logger.db
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 lightning==2.6.6 numpy==2.4.6 mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1
cat > finding.py <<'EOF'
import logging
import os

import lightning
import mlflow
from lightning.pytorch.loggers import MLFlowLogger

logging.disable(logging.INFO)
print(f"lightning {lightning.__version__}, mlflow {mlflow.__version__}")
mlflow.set_tracking_uri("sqlite:///own.db")


def name_store(uri):
    return uri.rpartition("/")[2]


logger = MLFlowLogger(tracking_uri="sqlite:///logger.db")
made = name_store(mlflow.get_tracking_uri())
print("a logger is made: later records go to", made)
logger.log_metrics({"loss": 1.0}, step=0)
used = name_store(mlflow.get_tracking_uri())
inherited = name_store(os.environ["MLFLOW_TRACKING_URI"])
print(f"it has recorded one number: later records go to {used}, those of child processes to {inherited}")
assert made == "own.db"
assert (used, inherited) == ("logger.db", "logger.db"), "the process keeps its own store now"
EOF
venv/bin/python -W ignore finding.py
