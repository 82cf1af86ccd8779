"""The trace of a module as calls of layers and functions on tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import fx, nn

from poise.compaction.calls import Call, CallGraph, Tensor
from poise.compaction.graph_analysis import INPUT
from poise.torch.compaction.aliases import find_rebound
from poise.torch.compaction.nodes import apply_node, flatten, is_selection, is_size, map_leaves
from poise.torch.compaction.tracing import Trace


@dataclass(frozen=True, eq=False)
class Function:
    """A function or a method of tensors in the place of a layer.

    Attributes:
        name: Name of the node.
        target: Function, or the name of the method.
    """

    name: str
    target: Any


@dataclass(eq=False)
class Arguments:
    """The arguments of a call.

    Attributes:
        node: Node of the trace.
        args: Positional arguments, with a `Tensor` for every tensor, and all other values as in the example.
        kwargs: Arguments by keyword.
        device: Device of the first output or input.
        depends_on_sizes: Whether a number among the arguments is computed from sizes, such as that of the batch.
        sources: By output, the indices of the units that its entries come from; only for functions that move entries.
    """

    node: fx.Node
    args: tuple
    kwargs: dict[str, Any]
    device: torch.device
    depends_on_sizes: bool = False
    sources: list[np.ndarray | None] = field(default_factory=list)

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or its name; the tensor of a method has position 0."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def is_module(self) -> bool:
        """Whether a module is called, and not a function."""
        return self.node.op == "call_module"

    @property
    def leaves(self) -> list[Any]:
        """All arguments, with those inside of lists, tuples and dicts."""
        return list(flatten((self.args, self.kwargs)))


class ModuleGraph(CallGraph):
    """The calls of a traced module in the order in which they run.

    Args:
        traced: Trace of the module.
        tolerance: Weights of at most this absolute value count as zero. Default: 0.

    Attributes:
        module: Traced copy of the module.
        values: By node, its result in the example, with a `Tensor` for every tensor.
        call_of: By node, the call that it makes, if any.
        attributes: The parameters and buffers that the forward code uses directly.
        decisions: The nodes whose numbers the forward code used in control flow.

    Raises:
        ValueError: If the forward code changes a tensor in place while a view of it is used later.
    """

    compact_name: ClassVar[str] = "poise.torch.compact"

    def __init__(self, traced: Trace, tolerance: float = 0.0) -> None:
        super().__init__(tolerance)
        self.module = traced.module
        self.values: dict[fx.Node, Any] = {}
        self.call_of: dict[fx.Node, Call] = {}
        self.attributes: list[torch.Tensor] = []
        self.decisions = traced.decisions
        self.shared: set[int] = set()
        """The ids of the layers whose biases other layers use too."""
        self._names = {id(module): name for name, module in reversed([*traced.module.named_modules()])}
        rebound = find_rebound(traced)
        for node in traced.graph.nodes:
            self._add_node(node, traced.results.get(node))
            for other in rebound.get(node, ()):
                self.values[other] = self.values[node]

    def name_of(self, layer: Any) -> str:
        return layer.name if isinstance(layer, Function) else self._names[id(layer)]

    def describe(self, layer: Any) -> str:
        if isinstance(layer, Function):
            kind = layer.target if isinstance(layer.target, str) else getattr(layer.target, "__name__", "function")
            return f"{layer.name!r} ({kind})"
        suffix = " with hooks" if any(map(has_hooks, layer.modules())) else ""
        return f"{self.name_of(layer)!r} ({type(layer).__name__}{suffix})"

    def has_weights(self, layer: Any) -> bool:
        return isinstance(layer, nn.Module) and any(True for _ in layer.parameters())

    def can_absorb(self, layer: Any) -> bool:
        return id(layer) not in self.shared

    def input_names(self, call: Call) -> list[str | None]:
        return [None] * len(call.inputs)

    def read_variable(self, variable: torch.Tensor) -> np.ndarray:
        return variable.detach().cpu().double().numpy()

    def unknown_axis(self, shape: tuple[Any, ...]) -> int | None:
        return None

    def _add_node(self, node: fx.Node, result: Any) -> None:
        if node.op == "output":
            self.outputs = [leaf for leaf in flatten(self._resolve(node.args)) if isinstance(leaf, Tensor)]
            return
        if node.op == "placeholder":
            self.values[node] = _to_tensors(result, INPUT)
            self.inputs += [leaf for leaf in flatten(self.values[node]) if isinstance(leaf, Tensor)]
            return
        if node.op == "get_attr":
            self.attributes += [leaf for leaf in flatten(result) if isinstance(leaf, torch.Tensor)]
            self.values[node] = _to_tensors(result, f"combined with {node.target!r} in the forward code")
            return
        args, kwargs = self._resolve(node.args), self._resolve(node.kwargs)
        inputs = [leaf for leaf in flatten((args, kwargs)) if isinstance(leaf, Tensor)]
        if is_selection(node) and isinstance(args[0], tuple | dict):
            self.values[node] = args[0][args[1]]
            return
        self.values[node] = _to_tensors(result, "" if inputs else f"combined with the output of {node.name!r}")
        if not inputs or is_size(node):
            return
        outputs = [leaf for leaf in flatten(self.values[node]) if isinstance(leaf, Tensor)]
        tensors = [leaf for leaf in flatten(result) if isinstance(leaf, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        arguments = Arguments(node, args, kwargs, device, self._depends_on_sizes(node))
        call = Call(self._layer(node), inputs, outputs, arguments, self)
        self.add_call(call)
        self.call_of[node] = call

    def _depends_on_sizes(self, node: fx.Node) -> bool:
        results = [leaf for other in node.all_input_nodes for leaf in flatten(self.values[other])]
        return any(isinstance(leaf, int | float) for leaf in results)

    def _layer(self, node: fx.Node) -> Any:
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))
        return Function(node.name, node.target)

    def _resolve(self, arguments: Any) -> Any:
        return map_leaves(lambda leaf: self.values[leaf] if isinstance(leaf, fx.Node) else leaf, arguments)


def run_call(call: Call, replace: Callable[[Tensor], Any]) -> Any:
    """Run the layer or function of a call with other tensors, given for each `Tensor` of its arguments."""
    arguments = call.arguments

    def convert(leaf: Any) -> Any:
        return replace(leaf) if isinstance(leaf, Tensor) else leaf

    return apply_node(
        arguments.node, call.layer, map_leaves(convert, arguments.args), map_leaves(convert, arguments.kwargs)
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks can change the inputs or the outputs of a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _to_tensors(result: Any, origin: str = "") -> Any:
    """Return a result with a `Tensor` for every tensor."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return Tensor(tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."), origin=origin)

    return map_leaves(convert, result)
