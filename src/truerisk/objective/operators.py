"""Second derivatives of J as symmetric operators, known by their products with vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import grad, vjp

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.objective.local_objective import LocalObjective

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

ENTRIES = 2**26
"""Most numbers a dense matrix may have without being asked for: half a gigabyte in float64."""

BLOCK = 16
"""Vectors that are multiplied in one pass over the data."""


class SymmetricOperator:
    """A symmetric p × p matrix A; a subclass defines ``A @ v`` for v of shape [p] or [p, k].

    Args:
        size: p.
        dtype: of the products.
        device: of the products.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.dtype, self.device = size, dtype, device

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return A v, of the shape of v."""
        raise NotImplementedError

    @property
    def eps(self) -> float:
        """The rounding unit of the dtype."""
        return torch.finfo(self.dtype).eps

    def dense(self, limit: int = ENTRIES) -> Tensor:
        """Return A itself, [p, p], made symmetric: (A + Aᵀ)/2.

        Raises:
            ConfigError: it would hold more than ``limit`` numbers.
        """
        check_size("a dense matrix", self.size**2, limit, self.dtype)
        identity = torch.eye(self.size, dtype=self.dtype, device=self.device)
        matrix = torch.cat([self @ block for block in identity.split(BLOCK, 1)], 1)
        return (matrix + matrix.T) / 2

    def probes(self, count: int, seed: int, name: str) -> Iterator[Tensor]:
        """Draw random signs ±1 (Rademacher) [p, k], at most `BLOCK` columns at a time.

        Args:
            count: vectors in all.
            seed: of the generator.
            name: tells the streams of different estimators apart.
        """
        # drawn on the CPU, so that every device has the same probes
        generator = rng.named_generator(seed, name)
        for block in torch.empty(count).split(BLOCK):
            signs = torch.randint(0, 2, (len(block), self.size), generator=generator)
            yield (2 * signs - 1).T.to(self.device, self.dtype)

    def to_scipy(self) -> LinearOperator:
        """Return A as a float64 ``scipy.sparse.linalg.LinearOperator``."""
        import numpy as np
        from scipy.sparse.linalg import LinearOperator

        def product(v: np.ndarray) -> np.ndarray:
            vector = torch.from_numpy(np.ascontiguousarray(v)).to(self.device, self.dtype)
            return (self @ vector).double().cpu().numpy()

        shape = (self.size, self.size)
        return LinearOperator(shape, matvec=product, matmat=product, dtype=np.float64)


class DenseOperator(SymmetricOperator):
    """A dense symmetric matrix as an operator.

    >>> DenseOperator(torch.diag(torch.tensor([1.0, 2.0]))) @ torch.ones(2)
    tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(len(matrix), matrix.dtype, matrix.device)
        self.matrix = matrix

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return A v."""
        return self.matrix @ v


def check_size(what: str, entries: int, limit: int, dtype: torch.dtype) -> None:
    """Refuse what would hold more than ``limit`` numbers.

    Args:
        what: its name, for the message.
        entries: numbers it would hold.
        limit: most it may.
        dtype: of the numbers.

    Raises:
        ConfigError: it would hold more.
    """
    if entries > limit:
        raise ConfigError(
            f"{what} of {entries:,} numbers would take {entries * dtype.itemsize / 1e9:.1f} GB "
            f"(limit={limit:,} numbers): take products with vectors and what is made of them "
            "(eigenvalues, trace, density), a smaller model, or a larger limit"
        )


class ScaledOperator(SymmetricOperator):
    """``S^½ (A + diag(c)) S^½`` for positive s [p] and c [p].

    A step ``−S (A + diag(c)) w`` on ½wᵀ(A + diag(c))w moves w along its eigenvectors, seen in the
    coordinates ``S^−½ w``.

    Args:
        a: A.
        scale: s [p].
        shift: c [p].

    >>> import torch
    >>> from truerisk.objective import DenseOperator
    >>> ones = DenseOperator(torch.ones(2, 2))
    >>> a = ScaledOperator(ones, torch.tensor([1.0, 4.0]), torch.tensor([0.0, 1.0]))
    >>> a.dense()
    tensor([[1., 2.],
            [2., 8.]])
    """

    def __init__(self, a: SymmetricOperator, scale: Tensor, shift: Tensor) -> None:
        super().__init__(a.size, a.dtype, a.device)
        self.a, self.root, self.shift = a, scale.sqrt(), shift

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return the product with v, of the shape of v."""
        root, shift = self.root, self.shift
        if v.ndim > 1:
            root, shift = root[:, None], shift[:, None]
        scaled = root * v
        return root * (self.a @ scaled + shift * scaled)


Linear = Callable[[Tensor], Tensor]


def pullback(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Linear]:
    """Return f(at), and the linear function ``u ↦ (∂f/∂w)ᵀu`` there, which shares its pass.

    Args:
        f: a function of one tensor.
        at: where.

    >>> import torch
    >>> value, pull = pullback(torch.square, torch.tensor([3.0, 4.0]))
    >>> value, pull(torch.tensor([1.0, 10.0]))
    (tensor([ 9., 16.]), tensor([ 6., 80.]))
    """
    value, vjp_fn, *_ = vjp(f, at)
    return value, lambda u: vjp_fn(u)[0]


class CurvatureOperator(SymmetricOperator):
    """A = 1/N Σ n·A_batch at a point; a subclass says what ``product`` does on one batch.

    A product runs once through all batches, in the memory of one; the k vectors of ``A @ V`` share
    the forward passes. Where all samples are in a single batch, its graph is kept, so that the next
    product needs no forward pass: delete the operator to free it.

    Args:
        point: w and the samples.
    """

    def __init__(self, point: LocalObjective) -> None:
        super().__init__(point.space.size, point.w.dtype, point.w.device)
        self.point = point
        self._kept: Linear | None = None

    def product(self, batch: Batch) -> Linear:
        """Return the function v ↦ A_batch v, for v of shape [p]."""
        raise NotImplementedError

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return A v, for v of shape [p] or [p, k]."""
        v = v.detach().to(self.device, self.dtype)
        if v.ndim > 1:
            return self.point.average_batches(lambda b: map_columns(self._kept_product(b), v))
        return self.point.average_batches(lambda b: self._kept_product(b)(v))

    def _kept_product(self, batch: Batch) -> Linear:
        if not self.point.single:
            return self.product(batch)
        if self._kept is None:
            self._kept = self.product(batch)
        return self._kept


def map_columns(product: Linear, matrix: Tensor) -> Tensor:
    """Apply a linear function to all columns of a matrix.

    Args:
        product: maps [p] to [q].
        matrix: [p, k].

    Returns:
        [q, k].
    """
    # some layers' second derivatives have no batching rule: there one column after another
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            return torch.vmap(product, 1, 1, chunk_size=BLOCK)(matrix)
    except RuntimeError:
        return torch.stack([product(column) for column in matrix.unbind(1)], 1)


class HessianOperator(CurvatureOperator):
    """``∇²J(w) = 1/N Σ ∇²l(w; xᵢ, yᵢ) + Σ λ∇²R(w)``, by its products with vectors.

    Reduction: mean over the N samples. A product differentiates the gradient once more, in reverse
    mode (Pearlmutter 1994 does it in forward mode, which not every layer has: the LSTM in float32
    on a CPU does not). It costs about three gradients.

    Where J has kinks (ReLU, max pooling, hinge, L1), it is the Hessian of the smooth piece that w
    lies on.

    >>> import torch
    >>> from truerisk.core.batch import Batch
    >>> from truerisk.objective import LocalObjective
    >>> from truerisk.objective import Objective
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    >>> batch = Batch(torch.eye(2), torch.zeros(2, 1))
    >>> H = HessianOperator(LocalObjective(objective, None, [batch]))
    >>> H @ torch.tensor([3.0, 4.0])
    tensor([3., 4.])
    """

    def product(self, batch: Batch) -> Linear:
        """Return the function v ↦ ∇²J_batch v."""
        # w → ∇J, and its pullback v → (∇²J)ᵀv = ∇²J v
        slope = grad(lambda w: self.point.evaluate(w, batch).objective)
        return pullback(slope, self.point.w)[1]


class GaussNewtonOperator(CurvatureOperator):
    """``G(w) = 1/N Σ Jᵢᵀ Hᵢ Jᵢ + Σ λ∇²R(w)``, by its products with vectors (Schraudolph 2002).

    ``Jᵢ = ∂f(xᵢ; w)/∂w`` [outputs, p] and ``Hᵢ = ∇²l`` with respect to the outputs of sample i.
    Reduction: mean over the N samples. It is the Hessian of J with the model replaced by its
    linearization at w, and positive semidefinite where the loss is convex in the outputs and the
    penalties are convex; those keep their own Hessian. For cross-entropy it is the Fisher matrix.

    ``Jᵢ v`` is taken as the derivative of the linear function ``u ↦ Jᵢᵀu``, in reverse mode, which
    every layer has (Townsend 2017).

    Args:
        point: w and the samples.
        penalties: whether the second term is in it.
    """

    def __init__(self, point: LocalObjective, penalties: bool = True) -> None:
        super().__init__(point)
        self.penalties = penalties and bool(point.objective.penalties)

    def product(self, batch: Batch) -> Linear:
        """Return the function v ↦ G_batch v."""
        point = self.point
        outputs, pull_back = pullback(lambda w: point.outputs(w, batch), point.w)
        # forward mode by reverse mode twice: u ↦ Jᵀu is linear, so its own pullback is v ↦ Jv
        _, push_forward = pullback(pull_back, torch.zeros_like(outputs))
        slope = grad(lambda f: point.objective.losses(f, batch).mean())
        _, loss_hessian = pullback(slope, outputs)
        penalty_hessian = self._penalty_product(batch)

        def product(v: Tensor) -> Tensor:
            f_jvp = push_forward(v)  # v → Jv
            curved = loss_hessian(f_jvp)  # Jv → HJv
            return pull_back(curved) + penalty_hessian(v)  # HJv → JᵀHJv

        return product

    def _penalty_product(self, batch: Batch) -> Linear:
        if not self.penalties:
            return torch.zeros_like

        def total(w: Tensor) -> Tensor:
            return torch.stack([*self.point.evaluate(w, batch).penalties.values()]).sum()

        return pullback(grad(total), self.point.w)[1]
