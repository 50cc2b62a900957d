"""A trained network for raw inputs: before it stands what was fitted to the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError
from truerisk.core.mixed_precision import compute_in_half
from truerisk.loss import Surrogate
from truerisk.task import Task
from truerisk.task.classification import read_classes


class Predictor(nn.Module):
    """Raw inputs [n, *shape] to outputs [n, …] in the targets' own units, in the run's precision.

    It standardizes the inputs as the run did, (x − mean) / scale, brings them to the type of the
    weights and shows them to the network. Mean and scale are buffers, so that a state dict of it
    is whole.

    Args:
        network: with the run's best weights; it is the submodule ``network``.
        task: what was learned.
        fitted: what the run fitted to its training data (``RunData.state_dict``).
        surrogate: the run's loss, which says how outputs are read.
        precision: of the run, as ``trainer.precision`` has it.
    """

    mean: Tensor | None
    scale: Tensor | None
    target_mean: Tensor | None
    target_scale: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        fitted: Mapping[str, Any],
        surrogate: Surrogate,
        precision: str = "32-true",
    ) -> None:
        super().__init__()
        self.network, self.task, self.precision = network, task, precision
        self.class_names = list(fitted.get("class_names") or ())
        self.classes = read_classes(self.class_names, fitted.get("class_type", "text"))
        self.input_shape = tuple(fitted["input_shape"])
        self.encoder = fitted.get("encoder") or {}
        standardizer = fitted.get("standardizer") or {}
        self.register_buffer("mean", standardizer.get("mean"))
        self.register_buffer("scale", standardizer.get("scale"))
        self.register_buffer("target_mean", None)
        self.register_buffer("target_scale", None)
        if surrogate.is_scaled:
            # not those that were fitted: the loss has a say in whether they are used
            self.target_mean = surrogate.decode_outputs(torch.zeros(surrogate.num_outputs))
            self.target_scale = surrogate.decode_outputs(torch.ones(surrogate.num_outputs))
            self.target_scale = self.target_scale - self.target_mean
        # in a list, as its buffers are no part of the predictor's state
        self._surrogates = [surrogate]

    @property
    def surrogate(self) -> Surrogate:
        """The run's loss, which says how outputs are read."""
        return self._surrogates[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs [n, …].

        Args:
            x: raw inputs [n, *shape].
        """
        if not self.task.integer_inputs:
            x = self.standardize_inputs(x)
        return self.run_network(x)

    def run_network(self, x: Tensor) -> Tensor:
        """Return outputs [n, …] in the targets' own units.

        Args:
            x: inputs as the network was trained on them.
        """
        with self._autocast(x.device.type):
            outputs: Tensor = self.network(x)
        if outputs.is_floating_point() and outputs.dtype.itemsize < 4:
            outputs = outputs.float()  # as losses are taken of them
        if self.target_mean is None or self.target_scale is None:
            return outputs
        return outputs * self.target_scale.to(outputs) + self.target_mean.to(outputs)

    def standardize_inputs(self, x: Tensor) -> Tensor:
        """Return inputs as the network was trained on them, in the type of its weights.

        Args:
            x: raw inputs [n, *shape].
        """
        if not x.is_floating_point():
            # whole numbers of 64 bits in double precision, as single would merge large ones
            x = x.to(torch.float64 if x.dtype.itemsize == 8 else torch.float32)
        # first in the type that the inputs came in, then cast: in this order a run does it too
        if self.mean is not None and self.scale is not None:
            x = (x - self.mean.to(x)) / self.scale.to(x)
        return x.to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        weights = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return next(weights, torch.get_default_dtype())

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        if self.precision == "bf16-mixed":
            return compute_in_half(device, torch.bfloat16)
        if self.precision == "16-mixed" and device == "cuda":  # a CPU has no use for it
            return compute_in_half(device, torch.float16)
        return nullcontext()


class Prediction(NamedTuple):
    """What a run says of inputs.

    Args:
        outputs: of the network, [n, …].
        probabilities: of the classes or labels, [n, K]; None where the loss gives none.
        values: the predicted classes [n], of the type that labels were given in; or numbers
            [n, outputs].
        class_names: as texts, in the order of the columns of ``probabilities``.
    """

    outputs: Tensor
    probabilities: Tensor | None
    values: np.ndarray
    class_names: Sequence[str]


def check_inputs(predictor: Predictor, x: Any) -> Tensor:
    """Return inputs as a tensor [n, *shape].

    Args:
        predictor: that they are for.
        x: a tensor, an array or nested lists; or the rows of a table, for a run that learned from
            one.

    Raises:
        ConfigError: they are no finite numbers, or samples have another shape.
    """
    if hasattr(x, "columns") and predictor.encoder:
        from truerisk.data.own_files import encode_frame

        x = encode_frame(x, predictor.encoder)
    if not isinstance(x, Tensor):
        try:
            # a copy, as pandas may hand out memory that must not be written to
            x = torch.as_tensor(np.array(x))
        except (TypeError, ValueError):
            raise ConfigError(
                f"predict: the inputs are a {type(x).__name__} of no numbers"
            ) from None
    shape = predictor.input_shape
    if x.shape[1:] != shape and x.ndim == 1 and shape == (1,):
        x = x[:, None]
    # sequences may be of another length
    if x.shape[1:] != shape and not predictor.task.integer_inputs:
        raise ConfigError(
            f"predict: the inputs have shape {list(x.shape)}, and the run was trained on "
            f"{['n', *shape]}".replace("'", "")
        )
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise ConfigError("predict: the inputs hold NaN or infinite numbers")
    return x


def predict_outputs(predictor: Predictor, x: Tensor) -> Tensor:
    """Return the outputs [n, …] of raw inputs, block by block.

    Args:
        predictor: in eval mode.
        x: raw inputs [n, *shape].
    """
    with torch.no_grad():
        size = predictor.task.block_size(x.shape[1:])
        return torch.cat([predictor(block) for block in x.split(size)])


def read_outputs(
    predictor: Predictor, outputs: Tensor, probabilities: Tensor | None = None
) -> Prediction:
    """Read outputs as a prediction.

    Args:
        predictor: that gave them.
        outputs: [n, …].
        probabilities: those to predict by; by default those of the outputs.
    """
    task, surrogate = predictor.task, predictor.surrogate
    if probabilities is None:
        probabilities = task.read_probabilities(surrogate, outputs)
    values = task.read_predictions(surrogate, outputs, probabilities).numpy()
    if task.has_classes and predictor.class_names:
        values = predictor.classes[values]
    return Prediction(outputs, probabilities, values, predictor.class_names)
