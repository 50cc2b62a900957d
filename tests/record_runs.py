"""Record what runs compute, and compare it with another recording to the last bit.

    python tests/record_runs.py list
    python tests/record_runs.py record FOLDER [--only REGEX]
    python tests/record_runs.py compare FOLDER [--only REGEX]

A recording holds, for each of some hundred runs (every optimizer, regularizer, scheduler, model and
diagnostic, runs that were killed and resumed, two processes, bf16-mixed, stacked ones), the rows of
``metrics.csv``, ``summary.json``, the weights of both checkpoints, and what the cell's hash is made
of. ``compare`` repeats them with the code at hand. Bits depend on the machine and on the number of
threads, so a recording is made anew where it is needed: by the commit that is the reference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SMALL = ["data=iris", "data.batch_size=30", "model.width=8", "trainer.max_epochs=4"]
FULL = [*SMALL[:1], "data.batch_size=full", "model.width=4", "trainer.max_epochs=5"]
DOUBLE = [*FULL, "trainer.precision=64-true"]
SIGNALS = ["data.source.num_samples=60", "data.batch_size=16", "trainer.max_epochs=2"]
FUNCTION = ["data=none", "optimizer=adam", "trainer.max_epochs=12"]
IMAGES = ["data=digits", "data.num_train=60", "data.val=30", "data.test=30", "data.batch_size=20"]

OPTIMIZERS = {
    **dict.fromkeys(
        [
            "adadelta",
            "adafactor",
            "adagrad",
            "adam",
            "adamax",
            "adamw",
            "lion",
            "momentum",
            "muon",
            "nadam",
            "nesterov",
            "prodigy",
            "radam",
            "rmsprop",
            "sam",
            "schedule_free_adamw",
            "sgd",
            "shampoo",
            "soap",
        ],
        SMALL,
    ),
    **dict.fromkeys(["adahessian", "sophia", "kfac", "lbfgs", "sgd_armijo"], SMALL),
    **dict.fromkeys(
        [
            "gauss_newton",
            "newton",
            "newton_cg",
            "gd",
            "gd_backtracking",
            "gd_exact",
            "gd_wolfe",
            "hill_climbing",
            "lbfgs_backtracking",
        ],
        DOUBLE,
    ),
}
MODELS = {
    "linear": [o for o in SMALL if "width" not in o],
    "mlp_residual": [*SMALL, "model.depth=2"],
    "mlp": [*SMALL, "model.normalization=batch"],
    "cnn1d": [*SIGNALS, "model.width=4"],
    "cnn": [*IMAGES, "model.width=3", "trainer.max_epochs=2"],
    "resnet": [*SIGNALS, "model.width=3", "model.stages=2"],
    "rnn": SMALL,
    "lstm": SMALL,
    "gru": SMALL,
    "transformer": [*SMALL, "model.heads=2"],
}
FUNCTIONS = [
    "ackley",
    "beale",
    "booth",
    "cubic",
    "exponential_sum",
    "gaussian_field",
    "himmelblau",
    "lessard",
    "monkey_saddle",
    "paraboloid",
    "quadratic_bowl",
    "rastrigin",
    "rosenbrock",
    "saddle",
    "sine_product",
    "softmax_loss",
    "styblinski_tang",
]
REGULARIZERS = {
    **dict.fromkeys(
        [
            "dropout",
            "early_stopping",
            "elastic_net",
            "ema",
            "entropy",
            "group_lasso",
            "input_gradient",
            "input_noise",
            "l1",
            "l2",
            "max_norm",
            "mixup",
            "orthogonality",
            "spectral_norm",
            "swa",
        ],
        SMALL,
    ),
    "cutmix": [*IMAGES, "model=cnn", "model.width=3", "trainer.max_epochs=2"],
}
SCHEDULERS = [
    "constant",
    "cosine",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "linear",
    "multistep",
    "one_cycle",
    "plateau",
    "polynomial",
    "step",
    "warm_restarts",
    "warmup_stable_decay",
]
DIAGNOSTICS = [
    "activations",
    "curvature",
    "flatness",
    "gradient_flow",
    "gradient_noise",
    "landscape",
    "numerics",
    "spectrum",
    "taylor",
    "update_size",
]
DATA = {
    "breast_cancer": ["data=breast_cancer", *SMALL[1:]],
    "diabetes": ["data=diabetes", "loss=mse", *SMALL[1:]],
    "digits": ["data=digits", "data.batch_size=200", *SMALL[2:]],
    "gaussians": ["data=gaussians", "risk.true_samples=20000", *SMALL[1:]],
    "noisy_linear": ["data=noisy_linear", "loss=mse", *SMALL[2:]],
    "polynomial": ["data=polynomial", "loss=mse", "risk.true_samples=20000", *SMALL[2:]],
    "teacher": ["data=teacher", "loss=mse", "risk.true_samples=20000", *SMALL[2:]],
    "wine": ["data=wine", "data.label_noise=0.2", *SMALL[1:]],
    "bce": ["data=breast_cancer", "loss=bce", *SMALL[1:]],
    "hinge": ["data=breast_cancer", "loss=hinge", *SMALL[1:]],
    "huber": ["data=diabetes", "loss=huber", *SMALL[1:]],
    "mae": ["data=diabetes", "loss=mae", *SMALL[1:]],
}
STEPS = {
    "accumulated": [*SMALL, "step.accumulate=2", "step.clip.norm=0.4", "param_groups=no_decay"],
    "clipped": [*SMALL, "step.clip.value=0.01", "optimizer=sgd", "optimizer.lr=0.5"],
    "bf16": [*SMALL, "trainer.precision=bf16-mixed", "model.normalization=layer"],
    "double": [*SMALL, "trainer.precision=64-true"],
    "max_steps": [*SMALL, "trainer.max_steps=5"],
    "every_two": [*SMALL, "risk.every=2", "trainer.max_epochs=5"],
    "tolerance": ["data=none", "model=quadratic_bowl", "optimizer=gd", "stop.gradient_norm=1e-3"],
    "diverging": [*SMALL, "optimizer=gd", "data.batch_size=full", "optimizer.lr=1e30"],
    "lsuv": [*SMALL, "initializer=lsuv", "model.depth=2"],
}
STACKED = {
    "stacked": [
        *SMALL,
        "seed=range(4)",
        "optimizer=sgd,momentum,adam,adamw,rmsprop",
        "regularizer=[dropout,l2],[mixup,ema]",
        "regularizer.l2.coefficient=0.001,0.01",
    ],
    "stacked_gru": [*SMALL, "model=gru", "seed=range(3)", "optimizer.lr=0.001,0.01"],
    "stacked_cnn1d": [*SIGNALS, "model=cnn1d", "model.width=4", "seed=range(2)"],
    "stacked_true": [*DATA["gaussians"], "seed=range(3)", "model.normalization=batch"],
    "stacked_halving": [
        *SMALL,
        "halving.first=1",
        "halving.factor=2",
        "optimizer.lr=0.0001,0.001,0.01,0.1",
        "trainer.max_epochs=8",
    ],
    "stacked_stopping": [
        *SMALL,
        "regularizer=[early_stopping]",
        "regularizer.early_stopping.patience=2",
        "optimizer.lr=0.01,0.3,1.0",
        "trainer.max_epochs=30",
    ],
    "serial_halving": [
        *SMALL,
        "hydra/launcher=basic",
        "halving.first=1",
        "halving.factor=2",
        "optimizer.lr=0.01,0.001,0.0001",
    ],
}
STACKED["stacked"].remove("regularizer.l2.coefficient=0.001,0.01")
TWO = [
    *("data=wine", "data.batch_size=7", "model=rnn", "model.width=4", "optimizer=momentum"),
    *("step.accumulate=2", "step.clip.norm=0.4", "scheduler=cosine", "scheduler.warmup=4"),
    *("regularizer=[l2,entropy,ema]", "risk.train_samples=53", "trainer.precision=64-true"),
    *("trainer.max_epochs=3", "trainer.max_steps=22", "diagnostics=[curvature,gradient_flow]"),
]
PROCESSES = {
    "ddp": [*TWO, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
    "fsdp": [
        *SMALL,
        *("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=3"),
    ],
}
KILLED = {
    "killed_dropout": [*SMALL, "regularizer=[dropout,mixup,ema]", "trainer.max_epochs=150"],
    "killed_batch_norm": [*SMALL, "model.normalization=batch", "trainer.max_epochs=150"],
    "killed_kfac": [*SMALL, "optimizer=kfac", "trainer.max_epochs=120"],
    "killed_early": [*SMALL, "regularizer=[early_stopping]", "trainer.max_epochs=150"],
}


def recipes() -> dict[str, list[str]]:
    """Name all single runs, each with its overrides."""
    found = {f"optimizer/{k}": [f"optimizer={k}", *v] for k, v in OPTIMIZERS.items()}
    found |= {f"model/{k}": [f"model={k}", *v] for k, v in MODELS.items()}
    found |= {f"function/{k}": [f"model={k}", *FUNCTION] for k in FUNCTIONS}
    found |= {f"regularizer/{k}": [f"regularizer=[{k}]", *v] for k, v in REGULARIZERS.items()}
    found |= {f"scheduler/{k}": [f"scheduler={k}", *SMALL] for k in SCHEDULERS}
    found |= {f"diagnostic/{k}": [f"diagnostics=[{k}]", *SMALL] for k in DIAGNOSTICS}
    found["diagnostic/recurrence"] = ["diagnostics=[recurrence]", "model=rnn", *SMALL]
    found["diagnostic/critical_point"] = ["diagnostics=[critical_point]", "model=saddle", *FUNCTION]
    found |= {f"data/{k}": v for k, v in DATA.items()}
    return found | {f"step/{k}": v for k, v in STEPS.items()}


def main() -> int:
    """Record or compare; the exit code is 1 where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("list", "record", "compare"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", default="", help="names that contain this regular expression")
    given = parser.parse_args()
    groups = {"": recipes(), "stacked/": STACKED, "processes/": PROCESSES, "killed/": KILLED}
    names = [f"{prefix}{name}" for prefix, group in groups.items() for name in group]
    chosen = [name for name in names if re.search(given.only, name)]
    if given.command == "list":
        print("\n".join(chosen))
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.command == "record":
        given.folder.mkdir(parents=True, exist_ok=True)
    different = 0
    for name, record in recorded(chosen):
        path = given.folder / f"{name.replace('/', '.')}.json"
        if given.command == "record":
            path.write_text(json.dumps(record, indent=1))
            print("recorded", name, flush=True)
            continue
        unlike = differences(json.loads(path.read_text()), record)
        different += bool(unlike)
        for line in unlike[:6]:
            print(f"DIFFERENT {name}: {line}", flush=True)
    print(f"{len(chosen)} recorded" if given.command == "record" else f"{different} differ")
    return 1 if different else 0


def recorded(chosen: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Make the runs and yield what each leaves behind."""
    single = recipes()
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(chosen):
            folder = Path(scratch) / str(number)
            kind, _, rest = name.partition("/")
            if name in single:
                yield name, train_here(single[name], folder)
            elif kind == "stacked":
                options = ["hydra/launcher=vectorized", *STACKED[rest], f"hydra.sweep.dir={folder}"]
                command("-m", "report=false", *options)
                yield (
                    name,
                    {
                        cell.name: read(cell)
                        for cell in sorted(folder.iterdir())
                        if (cell / "config.yaml").exists()
                    },
                )
            elif kind == "processes":
                command(*PROCESSES[rest], f"hydra.run.dir={folder}")
                yield name, read(folder)
            else:
                kill_and_resume(KILLED[rest], folder)
                yield name, read(folder)


def train_here(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Train in this process; a run that is refused records its message."""
    import truerisk

    try:
        truerisk.train([*overrides, "figures=false", "threads=1"], folder=folder)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return read(folder)


def command(*overrides: str) -> None:
    """Run ``truerisk train`` by the interpreter at hand."""
    line = [sys.executable, "-m", "truerisk", "train", "figures=false", "threads=1", *overrides]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_and_resume(overrides: list[str], folder: Path) -> None:
    """Kill a run with SIGKILL once a checkpoint of it lies there, and go on with it."""
    line = [sys.executable, "-m", "truerisk", "train", "figures=false", "threads=1", *overrides]
    line += ["checkpoint_seconds=0", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.01)
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*line[:4], f"resume={folder}"], check=True, stdout=subprocess.DEVNULL)


def read(folder: Path) -> dict[str, Any]:
    """Read all numbers of a run's folder."""
    import torch

    def weights(name: str) -> str:
        path = folder / "checkpoints" / name
        if not path.exists():
            return ""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved.get("state_dict") or saved.get("state")
        digest = hashlib.sha256()
        for key in sorted(state):
            tensor = state[key].detach().contiguous().cpu()
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(
                tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
            )
        return digest.hexdigest()

    config = re.sub(
        r"(?m)^(resume|checkpoint_seconds|threads|figures): .*\n",
        "",
        (folder / "config.yaml").read_text(),
    )
    status = json.loads((folder / "status.json").read_text())
    return {
        "metrics": (folder / "metrics.csv").read_text().splitlines(),
        "summary": json.loads((folder / "summary.json").read_text()),
        "last": weights("last.ckpt"),
        "best": weights("best.ckpt"),
        "config": config.splitlines(),
        "status": [status["status"], status["reason"]],
    }


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """List what differs between two recordings, down to the values."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = [f"{where}{k}: only in one of them" for k in sorted(before.keys() ^ after.keys())]
        both = [k for k in before if k in after]
        return lines + [
            line for k in both for line in differences(before[k], after[k], f"{where}{k} ")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) != len(after):
        return [f"{where}has {len(before)} and {len(after)} entries"]
    if isinstance(before, list) and isinstance(after, list):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}[{i}] ")]
    both_nan = before != before and after != after
    same = before == after or both_nan
    return [] if same else [f"{where}{before!r} became {after!r}"]


if __name__ == "__main__":
    raise SystemExit(main())
