"""Penalties: on the parameters alone, and on the function that the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus

from truerisk.core.batch import Forward
from truerisk.core.checks import check_float
from truerisk.core.deterministic import DifferentiableNorms
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.flat_vectors import flatten_tensors
from truerisk.core.parameter_rules import MATCHERS, find_norm_parameters, split_parameters
from truerisk.regularizer.base import Regularizer

Rules = Sequence[Mapping[str, Any]]


class ParameterGroup(NamedTuple):
    """Names of parameters, and the numbers a rule sets for them."""

    numbers: dict[str, Any]
    names: tuple[str, ...]


class ParameterGrouping:
    """Splits parameters by rules on the first call and remembers the outcome.

    Args:
        key: the regularizer's place in the config, for messages.
        numbers: what a rule may set. The first is the strength: a group whose strength is 0 or null
            is left out.
        rules: ordered parameter rules; see `ParameterPenalty`.

    Raises:
        ConfigError: a rule sets something else.

    >>> rules = [{"max_ndim": 1, "coefficient": 0}]
    >>> group = ParameterGrouping("regularizer.l2", ["coefficient"], rules)
    >>> group({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    [ParameterGroup(numbers={}, names=('weight',))]
    """

    def __init__(self, key: str, numbers: Sequence[str], rules: Rules | None = ()) -> None:
        self.strength = numbers[0]
        self.rules = [dict(rule) for rule in rules or ()]
        self.norms: frozenset[str] = frozenset()
        self._names: tuple[str, ...] | None = None
        self._groups: list[ParameterGroup] = []
        for rule in self.rules:
            _refuse_unknown(key, rule, (*numbers, *MATCHERS))

    def look_at(self, model: nn.Module) -> nn.Module:
        """Learn which parameters are those of norms, and return the model as it is."""
        self.norms, self._names = find_norm_parameters(model), None
        return model

    def __call__(self, params: Mapping[str, Tensor]) -> list[ParameterGroup]:
        """Return the groups of these parameters."""
        names = tuple(params)
        # matching regular expressions at every step would cost more than the penalty itself
        if names != self._names:
            self._groups = [
                ParameterGroup(numbers, tuple(members))
                for numbers, members in split_parameters(params.items(), self.rules, self.norms)
                if numbers.get(self.strength, 1) not in (0, None)
            ]
            self._names = names
        return self._groups


def _refuse_unknown(key: str, rule: Mapping[str, Any], names: Iterable[str]) -> None:
    for word in rule:
        if word not in names:
            raise ConfigError(
                f"{key}.rules sets `{word}`, which is unknown; {suggest(word, names)}"
            )


class ParameterPenalty(Regularizer):
    """λR(w), summed over the groups that ``rules`` make of the parameters.

    A rule is a mapping with any of ``name`` (a regular expression), ``min_ndim`` and ``max_ndim``,
    and the numbers to use for the parameters it matches; the first match wins, and a rule that
    matches nothing is an error unless it says ``optional: true``. A subclass names its numbers in
    ``numbers``, has an attribute for each, and defines ``penalize_weights``.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set any of ``numbers``.

    Raises:
        ConfigError: a coefficient is not a number of at least 0, or a rule sets something unknown.
    """

    stacks: ClassVar[tuple[str, ...]] = ("coefficient",)
    key = "regularizer"
    numbers: tuple[str, ...] = ("coefficient",)
    penalize_weights: Callable[..., Tensor]
    """``penalize_weights(weights, **numbers)``: λR of the parameters of one group, a scalar."""

    def __init__(self, coefficient: float, rules: Rules | None = ()) -> None:
        self.coefficient = check_float(f"{self.key}.coefficient", coefficient)
        self.groups = ParameterGrouping(self.key, self.numbers, rules)
        for rule in self.groups.rules:
            if rule.get("coefficient") is not None:
                check_float(f"{self.key}.rules: coefficient", rule["coefficient"])

    def edit_model(self, model: nn.Module) -> nn.Module:
        """Look at the model, and leave it as it is."""
        return self.groups.look_at(model)

    def penalty(self, forward: Forward) -> Tensor:
        """Return λR of all parameters, each with its group's numbers."""
        params, total = forward.params, None
        for group in self.groups(params):
            # the attributes are read at every step: a stack puts tensors [K] in their place
            numbers = {name: group.numbers.get(name, getattr(self, name)) for name in self.numbers}
            term = self.penalize_weights([params[name] for name in group.names], **numbers)
            total = term if total is None else total + term
        if total is None:
            return forward.outputs.new_zeros(())
        return total


class L2(ParameterPenalty):
    """L2 penalty: ``λR(w) = ½ λ‖w‖²``, with gradient ``λw``.

    Three things go by the name of L2, and only two of them are ever the same:

    * the L2 *penalty* (this): a term of the objective J, seen in ``objective`` and
      ``penalty/l2``, differentiated with the loss and clipped with its gradient;
    * *coupled* weight decay (``weight_decay`` of `torch.optim.SGD` or `Adam`): λw added to the
      gradient inside the optimizer, after clipping. Without clipping its steps are those of the
      penalty with the same λ, but J does not show it;
    * *decoupled* weight decay (`AdamW`): w shrinks by lr·λ·w beside the step. For SGD it equals
      coupled decay; for Adam it does not, because Adam rescales what is in the gradient.

    Source: Hoerl & Kennard, "Ridge Regression", Technometrics 12 (1970); on decay: Loshchilov &
    Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, §2.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> L2(0.1).penalize_weights([torch.tensor([3.0, 4.0])], coefficient=0.1)
    tensor(1.2500)
    """

    key = "regularizer.l2"

    def penalize_weights(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """Return ½λ‖w‖², a scalar.

        Args:
            weights: the parameters of one group.
            coefficient: its λ.
        """
        # one vector: two kernels on it beat two on each of many small parameters; and dot, as
        # square().sum() would make a temporary as long as w
        w = flatten_tensors(weights)
        return (0.5 * coefficient) * torch.dot(w, w)


class L1(ParameterPenalty):
    """L1 penalty: ``λR(w) = λ‖w‖₁``, with (sub)gradient ``λ sign(w)``, 0 at 0.

    Plain gradient steps shrink weights towards 0 and then jitter around it: they end up small, of
    the order of lr·λ, but not exactly 0.

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", JRSS-B 58 (1996).

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> L1(0.5).penalize_weights([torch.tensor([3.0, -4.0])], coefficient=0.5)
    tensor(3.5000)
    """

    key = "regularizer.l1"

    def penalize_weights(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """Return λ‖w‖₁, a scalar.

        Args:
            weights: the parameters of one group.
            coefficient: its λ.
        """
        return coefficient * flatten_tensors(weights).abs().sum()


class ElasticNet(ParameterPenalty):
    """Elastic net: ``λR(w) = λ (ρ‖w‖₁ + ½ (1 − ρ)‖w‖²)`` with λ ``coefficient``, ρ ``l1_ratio``.

    This is scikit-learn's parametrization (there, λ is called ``alpha``). Its `ElasticNet` adds it
    to *half* the mean squared error, so on top of this project's ``mse`` the same solution needs
    twice its ``alpha``.

    Source: Zou & Hastie, "Regularization and Variable Selection via the Elastic Net", JRSS-B 67
    (2005).

    Args:
        coefficient: λ.
        l1_ratio: ρ in [0, 1]; 1 is the L1 penalty, 0 the L2 penalty.
        rules: ordered parameter rules that set ``coefficient`` or ``l1_ratio``.

    >>> penalty, w = ElasticNet(1.0, 0.5), torch.tensor([3.0, -4.0])
    >>> penalty.penalize_weights([w], coefficient=1.0, l1_ratio=0.5)
    tensor(9.7500)
    """

    stacks = ("coefficient", "l1_ratio")
    key = "regularizer.elastic_net"
    numbers = ("coefficient", "l1_ratio")

    def __init__(self, coefficient: float, l1_ratio: float = 0.5, rules: Rules | None = ()) -> None:
        super().__init__(coefficient, rules)
        self.l1_ratio = check_float(f"{self.key}.l1_ratio", l1_ratio, 0, 1)
        for rule in self.groups.rules:
            if "l1_ratio" in rule:
                check_float(f"{self.key}.rules: l1_ratio", rule["l1_ratio"], 0, 1)

    def penalize_weights(
        self, weights: Sequence[Tensor], *, coefficient: float, l1_ratio: float
    ) -> Tensor:
        """Return λ(ρ‖w‖₁ + ½(1 − ρ)‖w‖²), a scalar.

        Args:
            weights: the parameters of one group.
            coefficient: its λ.
            l1_ratio: its ρ.
        """
        w = flatten_tensors(weights)
        return coefficient * (l1_ratio * w.abs().sum() + 0.5 * (1 - l1_ratio) * torch.dot(w, w))


class GroupLasso(ParameterPenalty):
    """Group lasso: ``λR(w) = λ Σ_g √|g| ‖w_g‖₂``.

    A group is what feeds one unit: a row of a dense layer's weight, a filter of a convolution, so
    whole units fade out together. |g| is the number of its entries. Each entry of a vector is a
    group of its own. The subgradient taken at ``w_g = 0`` is 0.

    Source: Yuan & Lin, "Model Selection and Estimation in Regression with Grouped Variables",
    JRSS-B 68 (2006), eq. 2.1; for networks Wen et al., "Learning Structured Sparsity in Deep
    Neural Networks", NeurIPS 2016.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> w = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> GroupLasso(0.1).penalize_weights([w], coefficient=0.1)
    tensor(1.)
    """

    key = "regularizer.group_lasso"

    def penalize_weights(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """Return λ Σ √|g| ‖w_g‖₂, a scalar.

        Args:
            weights: the parameters of one group.
            coefficient: its λ.
        """
        return coefficient * torch.stack([_sum_row_norms(w) for w in weights]).sum()


def _sum_row_norms(w: Tensor) -> Tensor:
    """Compute √|g| Σ‖row‖₂ of a parameter whose rows are the groups."""
    rows = w.reshape(w.shape[0] if w.ndim else 1, -1)
    # ‖·‖ has no slope at the tip of its cone: there, NaN would come back through the square root
    zero = (rows == 0).all(1, keepdim=True)
    norms = torch.linalg.vector_norm(torch.where(zero, 1.0, rows), dim=1)
    return rows.shape[1] ** 0.5 * torch.where(zero.squeeze(1), 0.0, norms).sum()


class Orthogonality(ParameterPenalty):
    """Soft orthogonality: ``λR(w) = λ Σ_W ‖W Wᵀ − I‖_F²``, with gradient ``4λ(W Wᵀ − I)W``.

    W is a dense layer's weight, or a convolution's kernel as a matrix [out, in · window]; vectors
    and scalars are left alone. Where W is taller than wide, ``Wᵀ W`` takes the place of ``W Wᵀ``:
    the smaller of the two can become I, the larger cannot.

    Source: Bansal, Chen & Wang, "Can We Gain More from Orthogonality Regularizations in Training
    Deep CNNs?", NeurIPS 2018, §3.1.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> Orthogonality(0.5).penalize_weights([2 * torch.eye(3)], coefficient=0.5)
    tensor(13.5000)
    """

    key = "regularizer.orthogonality"

    def penalize_weights(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """Return λ Σ ‖WWᵀ − I‖_F², a scalar.

        Args:
            weights: the parameters of one group.
            coefficient: its λ.
        """
        matrices = [w.flatten(1) for w in weights if w.ndim > 1]
        # W Wᵀ − I in bfloat16 would be rounding error where it matters, near 0
        with torch.autocast(weights[0].device.type, enabled=False):
            return coefficient * sum(map(_gram_deviation, matrices), weights[0].new_zeros(()))


def _gram_deviation(w: Tensor) -> Tensor:
    """Compute ‖W Wᵀ − I‖_F², or ‖Wᵀ W − I‖_F² for a tall W."""
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return (gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)).square().sum()


class Entropy(Regularizer):
    """Confidence penalty: ``λR = −β · mean_i H(p(·|xᵢ))``, which rewards undecided predictions.

    p is the softmax of the outputs [n, K], or the sigmoid of a single output, and
    ``H(p) = −Σ_k p_k log p_k`` in nats. The penalty lies between −β log K (uniform) and 0
    (certain). It is for classification.

    Source: Pereyra, Tucker, Chorowski, Kaiser & Hinton, "Regularizing Neural Networks by Penalizing
    Confident Output Distributions", ICLR workshop 2017, §3.1.

    Args:
        coefficient: β.

    Raises:
        ConfigError: the targets are not class labels.

    >>> entropy(torch.zeros(1, 4))
    tensor([1.3863])
    """

    stacks = ("coefficient",)
    requires = ("samples", "class probabilities")

    def __init__(self, coefficient: float) -> None:
        self.coefficient = check_float("regularizer.entropy.coefficient", coefficient)

    def penalty(self, forward: Forward) -> Tensor:
        """Return −β times the mean entropy, a scalar."""
        if forward.batch.y.is_floating_point():
            raise ConfigError(
                "regularizer=entropy needs class probabilities, but the data's task is regression: "
                "leave entropy out, or pick data with classes"
            )
        return -self.coefficient * entropy(forward.outputs).mean()


def entropy(outputs: Tensor) -> Tensor:
    """Compute H of the softmax of [n, K] outputs, or of the sigmoid of [n, 1], in nats: [n]."""
    # in 16 bits, p log p of an unlikely class would be rounded away
    if outputs.dtype.itemsize < 4:
        outputs = outputs.float()
    if outputs.shape[-1] == 1:
        z = outputs.squeeze(-1)
        return softplus(z) - z * z.sigmoid()
    log_p = outputs.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


class InputGradient(Regularizer):
    """Double backpropagation: ``λR = λ · mean_i ‖∇ₓ l(f(xᵢ), yᵢ)‖²``.

    Keeps the loss flat around the training samples. It costs a second forward pass and is
    differentiated twice. Where samples of a batch influence each other (batch normalization while
    training), the gradient is that of the batch's summed loss.

    Source: Drucker & LeCun, "Improving Generalization Performance Using Double Backpropagation",
    IEEE Transactions on Neural Networks 3 (1992).

    Args:
        coefficient: λ.
    """

    differentiates_again = True
    stacks = ("coefficient",)
    requires = ("samples", "real inputs")

    def __init__(self, coefficient: float) -> None:
        self.coefficient = check_float("regularizer.input_gradient.coefficient", coefficient)

    def penalty(self, forward: Forward) -> Tensor:
        """Return λ times the mean squared norm of the loss's gradient by the inputs, a scalar."""
        gradient = input_gradient(forward)
        return self.coefficient * gradient.square().sum() / len(gradient)


def input_gradient(forward: Forward) -> Tensor:
    """Compute ∇ₓ Σ l at the batch's inputs, [n, *input_shape].

    It is differentiable where gradients are being tracked.
    """

    def summed_loss(x: Tensor) -> Tensor:
        # fused attention and cuDNN's recurrent layers cannot be differentiated twice
        with sdpa_kernel(SDPBackend.MATH), cudnn.flags(enabled=False), DifferentiableNorms():
            return forward.losses_at(x).sum()

    # Ordinary autograd where it works: batch normalization cannot update its statistics inside
    # `torch.func.grad`. Inside another `torch.func` transform, where that is the only way,
    # `requires_grad_` raises.
    try:
        x = forward.batch.x.detach().requires_grad_()
    except RuntimeError:
        return torch.func.grad(summed_loss)(forward.batch.x)
    tracking = torch.is_grad_enabled()
    with torch.enable_grad():
        return torch.autograd.grad(summed_loss(x), x, create_graph=tracking)[0]
