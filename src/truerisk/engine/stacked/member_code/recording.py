"""A function of tensors, recorded as the operations that it comes to.

`torch.fx.experimental.proxy_tensor.make_fx` records them too, but loads TorchDynamo to do so, which
takes a process as long as torch itself does, and 70 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from truerisk.engine.stacked.member_code.layout import NotKnown

DECIDED_BY_NUMBERS = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
"""Marks of operations such as ``item`` and ``nonzero``, which no recording can play back."""


def record_operations(
    function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]
) -> fx.GraphModule:
    """Record what a function does, gradients and what `torch.vmap` makes of it included.

    Args:
        function: of tensors.
        tensors: what it is called with; where they are without numbers (on ``meta``), so is all
            that it has beside them.

    Returns:
        The operations, each with what it has given as ``meta["val"]``; tensors that the function
        has beside its arguments are attributes.

    Raises:
        NotKnown: other numbers would have it do something else, or something of it was done where
            no recording sees it.
    """
    recorder = _Recorder(tensors)
    with recorder:
        results = function(*tensors)
    recorder.graph.output(tuple(map(recorder.find_node, results)))
    recorder.graph.eliminate_dead_code()
    return fx.GraphModule(recorder.constants, recorder.graph)


class _Recorder(TorchDispatchMode):
    """Note every operation below gradients, `torch.vmap` and autocast.

    Attributes:
        graph: of the operations.
        constants: by name, tensors that are no argument's and no result's.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.constants = fx.Graph(), dict[str, Tensor]()
        self.on_meta = tensors[0].is_meta
        # with the tensors, whose identities would be given to others once they are gone
        self._nodes: dict[int, tuple[Tensor, fx.Node]] = {}
        self._storages: set[int] = set()
        for number, tensor in enumerate(tensors):
            self.note(tensor, self.graph.placeholder(f"a{number}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would load TorchDynamo at the first operation, to tell it that it is to skip this
        return False

    def note(self, tensor: Tensor, node: fx.Node, value: Tensor | None = None) -> None:
        """Note which node gives a tensor.

        Args:
            tensor: as the function has it.
            node: that gives it.
            value: the same without its numbers, where those are no matter.
        """
        node.meta["val"] = tensor if value is None else value
        self._nodes[id(tensor)] = tensor, node
        self._storages.add(tensor.untyped_storage()._cdata)

    def find_node(self, tensor: Tensor) -> fx.Node:
        """Find which node gives a tensor; one that was there before becomes a constant."""
        if id(tensor) not in self._nodes:
            seen = tensor.untyped_storage()._cdata in self._storages
            if seen or (self.on_meta and tensor.is_meta):
                raise NotKnown("a tensor that was made where no recording sees it")
            name = f"c{len(self.constants)}"
            self.constants[name] = tensor
            self.note(tensor, self.graph.get_attr(name), self.leave_numbers(tensor))
        return self._nodes[id(tensor)][1]

    def leave_numbers(self, value: Any) -> Any:
        """Leave a tensor's numbers out, where the arguments have none."""
        known = self._nodes.get(id(value))
        if not isinstance(value, Tensor) or not self.on_meta or value.is_meta:
            return value
        return value.to("meta") if known is None else known[1].meta["val"]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do an operation, and note it."""
        if _is_decided_by_numbers(func, args):
            raise NotKnown(f"{func} gives what other numbers would change")
        given = args, kwargs or {}
        nodes = tree_map(lambda v: self.find_node(v) if isinstance(v, Tensor) else v, given)
        args, kwargs = tree_map(self.leave_numbers, given)
        result = tree_map(self.leave_numbers, func(*args, **kwargs))
        node = self.graph.call_function(func, *nodes)
        if isinstance(result, Tensor):
            self.note(result, node)
        elif isinstance(result, tuple | list):
            node.meta["val"] = result
            for number, part in enumerate(result):
                if isinstance(part, Tensor):
                    self.note(part, self.graph.call_function(getitem, (node, number)))
        return result


def _is_decided_by_numbers(func: Any, args: tuple[Any, ...]) -> bool:
    """Tell whether an operation gives another shape, or another number of Python's, to others."""
    if func.overloadpacket is torch.ops.aten.index:  # a mask selects as many as are true
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return not DECIDED_BY_NUMBERS.isdisjoint(func.tags)
