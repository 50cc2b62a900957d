"""What an optimizer that uses curvature may ask about J on the samples of one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn


class LayerCapture(NamedTuple):
    """What one micro-batch shows of the layers whose curvature is asked for.

    Attributes:
        share: the share that the micro-batch has in the step.
        samples: n, its samples.
        inputs: for every call of a layer, its input.
        output_gradients: for every call of a layer, the derivatives [k, *output shape] of
            ``Σᵢ vᵢᵀ f(xᵢ)`` with respect to its output, for each of the k vectors v of
            ``truerisk.objective.loss_curvature.curvature_roots``.
        gradients: of the other parameters asked about, those of one random v: the expectation of
            their square is the diagonal of the Gauss–Newton matrix, summed over the samples, as
            the vᵢ of different samples are independent and have mean zero.
    """

    share: float
    samples: int
    inputs: dict[nn.Module, list[Tensor]]
    output_gradients: dict[nn.Module, list[Tensor]]
    gradients: list[Tensor]


class CaptureRequest(NamedTuple):
    """What is to be captured in the first forward pass of a step.

    Attributes:
        layers: layers whose inputs and output gradients are asked for.
        params: other parameters, whose gradients are.
        exact: all roots of the loss's curvature, or a random one.
        receive: called with the `LayerCapture` of each micro-batch.
    """

    layers: Sequence[nn.Module]
    params: Sequence[Tensor]
    exact: bool
    receive: Callable[[LayerCapture], None]


class CurvatureOracle(Protocol):
    """J on the samples of one step, a deterministic function of the flat weights w [p].

    What ``step`` of an optimizer with ``Needs(curvature=True)`` is given. Vectors [p] are in the
    order of ``params``. Derivatives are those at the weights where the step begins; ``set_weights``
    ends it.
    """

    params: list[Tensor]

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""

    def copy_weights(self) -> Tensor:
        """Return w [p], a copy."""

    def set_weights(self, w: Tensor) -> None:
        """Put w [p] into the parameters; that ends the step."""

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cut a vector [p] into tensors in the shapes of the parameters."""

    def value(self, at: Tensor | None = None) -> Tensor:
        """Return J, a scalar, at the weights ``at`` [p] or where the step begins."""

    def gradient(self) -> Tensor:
        """Return ∇J(w), [p]."""

    def hessian(self) -> Tensor:
        """Return ∇²J(w), [p, p]."""

    def hessian_product(self, vector: Tensor) -> Tensor:
        """Return ∇²J(w) v, [p]."""

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """Return Bv, [p]: the Gauss–Newton matrix of the risk, plus the penalties' Hessian."""

    def penalty_product(self, vector: Tensor) -> Tensor:
        """Return ∇²λR(w) v, [p]: the Hessian of the penalties alone."""

    def begin_step(self, request: CaptureRequest | None = None) -> None:
        """Evaluate J and ∇J for the first time, capturing layers; before anything else is asked."""

    def average_processes(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
