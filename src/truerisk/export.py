"""A trained model as a file of its own: weights and preprocessing together, checked as written."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, describe_error
from truerisk.data.encoder import list_features
from truerisk.engine.recorder import write_tensors
from truerisk.predictor import Predictor
from truerisk.result import RunResult, load_run
from truerisk.task import get_task

SAMPLES = 5
"""Inputs that a written file is checked on."""
OPSET = 18
"""Of ONNX."""


class Format(NamedTuple):
    """A way to write a model.

    Args:
        suffix: of the file.
        packages: that writing and reading it needs beside torch.
        write: writes a predictor for example inputs, with facts as texts, to a path.
        read: opens the file as a function of inputs.
    """

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[Predictor, Tensor, dict[str, str], Path], None]
    read: Callable[[Path, Predictor], Callable[[Tensor], Tensor]]


def export_run(
    folder: str | Path, form: str = "state_dict", out: str | Path | None = None
) -> tuple[Path, float]:
    """Write a run's best weights, its fitted standardization and its class names as one file.

    What the file gives for inputs is compared with what the run's own model gives.

    Args:
        folder: of the run.
        form: one of `FORMATS`.
        out: the file; by default ``model`` with the format's ending, in the run's folder.

    Returns:
        The file, and the largest difference between its outputs and the model's, relative to the
        largest output.

    Raises:
        ConfigError: there is no such run or format, a package is missing, the model cannot be
            written so, or the outputs differ.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form}: give {', '.join(FORMATS)}")
    written = FORMATS[form]
    missing = [name for name in written.packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export: {form} needs {', '.join(missing)}: pip install 'truerisk[export]'"
        )
    run = load_run(folder)
    if not get_task(run.task).has_samples:
        raise ConfigError(f"export: {run.folder} minimises a function, and has no inputs")
    path = Path(out) if out is not None else run.folder / f"model{written.suffix}"
    part = claim_file(path)
    try:
        predictor: Any = run.model
        predictor.eval()
        x = make_inputs(predictor)
        try:
            with torch.no_grad():
                written.write(predictor, x, describe_run(run, predictor), part)
                model = written.read(part, predictor)
                difference = compare_outputs(model(x), predictor(x), form, find_bound(predictor))
        except OSError as error:
            raise ConfigError(f"export: cannot write {path}: {error.strerror}") from error
        except ConfigError:
            raise
        # tracing and exporting fail in as many ways as models are written
        except Exception as error:
            raise ConfigError(
                f"export: this model cannot be written as {form} for any number of samples "
                f"({describe_error(error)}); take --format state_dict"
            ) from error
        check_sizes(model, predictor, x, form)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path, difference


def claim_file(path: Path) -> Path:
    """Create the file beside a path that is written before it is renamed.

    Args:
        path: what is to be written.

    Raises:
        ConfigError: it cannot be, which each library would say in words of its own, and later.
    """
    if path.is_dir():
        raise ConfigError(f"export: cannot write {path}: it is a folder")
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        part.touch()
    except OSError as error:
        raise ConfigError(f"export: cannot write {path}: {error.strerror}") from error
    return part


def find_bound(predictor: Predictor) -> float:
    """Return the relative difference that rounding explains.

    Args:
        predictor: whose precision counts.
    """
    if predictor.precision.endswith("-mixed"):
        return 4 * torch.finfo(torch.bfloat16).eps
    # a graph of fused operations rounds otherwise, by some units of the last place
    return 100 * torch.finfo(predictor.dtype).eps


def compare_outputs(found: Tensor, expected: Tensor, form: str, bound: float) -> float:
    """Return the largest relative difference of outputs.

    Args:
        found: what a file gives.
        expected: what the model gives.
        form: of the file, for messages.
        bound: what rounding explains.

    Raises:
        ConfigError: they differ by more.
    """
    scale = float(expected.abs().max().clamp(min=1e-30))
    difference = float((found.double() - expected.double()).abs().max()) / scale
    if found.shape != expected.shape or not difference <= bound:
        raise ConfigError(
            f"export: as {form} the model gives outputs that differ by {difference:.2g} of the "
            "largest: what it does depends on its inputs' values or size, and is lost in tracing"
        )
    return difference


def check_sizes(
    model: Callable[[Tensor], Tensor], predictor: Predictor, x: Tensor, form: str
) -> None:
    """Refuse a file that takes no other number of samples than it was traced with.

    Args:
        model: what the file holds.
        predictor: what it was written from.
        x: the inputs it was traced with.
        form: of the file, for messages.

    Raises:
        ConfigError: it does not take fewer.
    """
    with torch.no_grad():
        try:
            bound = find_bound(predictor)
            compare_outputs(model(x[:2]), predictor(x[:2]), form, bound)
        except RuntimeError:
            # as where a forward pass asks for `len(x)`, which is a plain number to a trace
            raise ConfigError(
                f"export: as {form} this model takes {len(x)} samples at a time and no others, as "
                "its trace holds that number: take --format state_dict"
            ) from None


def make_inputs(predictor: Predictor) -> Tensor:
    """Draw raw inputs [n, *shape] near those that the run was trained on.

    Args:
        predictor: the model.
    """
    draw = torch.Generator().manual_seed(0)
    if predictor.task.integer_inputs:
        # the smallest tokens, as any vocabulary has them
        return torch.randint(2, (SAMPLES, *predictor.input_shape), generator=draw)
    x = torch.randn((SAMPLES, *predictor.input_shape), generator=draw, dtype=torch.float64)
    if predictor.mean is not None and predictor.scale is not None:
        x = x * predictor.scale + predictor.mean
    return x.to(predictor.dtype)


def describe_run(run: RunResult, predictor: Predictor) -> dict[str, str]:
    """Return what a reader of the file wants to know of the run, as texts.

    Args:
        run: the run.
        predictor: its model.
    """
    from omegaconf import OmegaConf

    columns = predictor.encoder.get("columns", [])
    facts = {
        "class_names": predictor.class_names,
        "task": predictor.task.name,
        "input_shape": list(predictor.input_shape),
        "features": [str(part["name"]) for part in columns],
        # what a row of the input holds, and what stands for a gap in a table's column
        "input_columns": list_features(predictor.encoder),
        "fill_values": {str(part["name"]): part["fill"] for part in columns},
        "run": run.run.id,
        "summary": {name: m._asdict() for name, m in run.summary.items()},
        "config": OmegaConf.to_container(run.config, resolve=True),
    }
    return {key: json.dumps(value, default=str) for key, value in facts.items()}


# --- formats ------------------------------------------------------------------------------------


def write_state(predictor: Predictor, x: Tensor, facts: dict[str, str], path: Path) -> None:
    """Write ``state_dict`` (of a `Predictor`) and the facts, loadable with ``weights_only``."""
    write_tensors(path, {"state_dict": predictor.state_dict(), **facts})


def read_state_file(path: Path, predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """Load the state into a copy of the model."""
    state = torch.load(path, weights_only=True)["state_dict"]
    return _load_copy(predictor, state)


def _load_copy(predictor: Predictor, state: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    import copy

    mine = copy.deepcopy(predictor)
    with torch.no_grad():
        for tensor in [*mine.parameters(), *mine.buffers()]:
            if tensor.is_floating_point():
                tensor.zero_()  # what the file lacked would show
    mine.load_state_dict(state)
    return mine


def write_safetensors(predictor: Predictor, x: Tensor, facts: dict[str, str], path: Path) -> None:
    """Write the state as safetensors, the facts as its metadata."""
    from safetensors.torch import save_file

    # a copy of each, as the format refuses tensors that share memory
    state = {name: t.detach().clone().contiguous() for name, t in predictor.state_dict().items()}
    save_file(state, str(path), metadata=facts)


def read_safetensors_file(path: Path, predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """Load the state into a copy of the model."""
    from safetensors.torch import load_file

    return _load_copy(predictor, load_file(str(path)))


def write_torchscript(predictor: Predictor, x: Tensor, facts: dict[str, str], path: Path) -> None:
    """Trace the model; each fact is an extra file of the archive."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing's end of life, and of constants in a trace
        # checked by us, on the file that is written
        traced: Any = torch.jit.trace(predictor, x, check_trace=False)
        traced.save(str(path), _extra_files=facts)


def read_torchscript(path: Path, predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """Load the script."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script: Callable[[Tensor], Tensor] = torch.jit.load(str(path))
    return script


def _export_program(predictor: Predictor, x: Tensor) -> Any:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(predictor, (x,), dynamic_shapes=({0: batch},), strict=False)


def write_torch_export(predictor: Predictor, x: Tensor, facts: dict[str, str], path: Path) -> None:
    """Export the graph, for any number of samples; each fact is an extra file of the archive."""
    torch.export.save(_export_program(predictor, x), path, extra_files=dict(facts))


def read_torch_export(path: Path, predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """Load the graph."""
    module: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return module


def write_onnx(predictor: Predictor, x: Tensor, facts: dict[str, str], path: Path) -> None:
    """Write an ONNX model, input ``x`` and output ``outputs``, the facts as its metadata."""
    import onnx

    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["outputs"]}
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    names |= {"dynamic_shapes": shapes, "opset_version": OPSET, "verbose": False}
    logger = logging.getLogger("torch.onnx")
    heard = logger.level
    logger.setLevel(logging.ERROR)  # it misses torchvision, which is no use
    try:
        with warnings.catch_warnings():
            # torch copies trees by a test that it has deprecated itself
            warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)
            program: Any = torch.onnx.export(predictor, (x,), dynamo=True, **names)
    finally:
        logger.setLevel(heard)
    model = program.model_proto
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))


def read_onnx(path: Path, predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """Open the model by ONNX's own reference implementation."""
    from onnx.reference import ReferenceEvaluator

    session: Any = ReferenceEvaluator(str(path))
    return lambda x: torch.as_tensor(session.run(None, {"x": x.numpy()})[0])


FORMATS = {
    "state_dict": Format(".pt", (), write_state, read_state_file),
    "safetensors": Format(
        ".safetensors", ("safetensors",), write_safetensors, read_safetensors_file
    ),
    "torchscript": Format(".ts", (), write_torchscript, read_torchscript),
    "torch_export": Format(".pt2", (), write_torch_export, read_torch_export),
    "onnx": Format(".onnx", ("onnx", "onnxscript"), write_onnx, read_onnx),
}
"""What a model can be written as, by name."""
