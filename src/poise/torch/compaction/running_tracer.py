"""A tracer of torch.fx that also runs every node, so that forward code can use sizes in control flow.

Plain symbolic tracing does not know sizes, and stops at `if x.ndim == 3`, `len(x.shape)` or `for y in x.chunk(3)`.
Here, Python sees the numbers of the example. The nodes that computed them are recorded as decisions, since the code
could do something else with other sizes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import Attribute, TraceError

from poise.compaction.handlers import HANDLERS
from poise.torch.compaction.nodes import IN_PLACE_OPERATORS, apply_node, flatten, map_leaves

CONSTRUCTORS = ("zeros", "ones", "full", "empty", "rand", "randn", "arange", "linspace", "eye")


class RunningTracer(fx.Tracer):
    """Traces a module on example inputs. The layers of torch.nn, and all modules that have a handler, are single nodes.

    Attributes:
        results: Result of every node.
        decisions: Nodes whose numbers the forward code used in control flow.
        path: Names of the modules that are being traced; after an error, the last is the one that failed.
        is_running: Whether a node is being run, and not traced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[fx.Node, Any] = {}
        self.decisions: list[fx.Node] = []
        self.path: list[str] = []
        self._inputs: Iterator[torch.Tensor] = iter(())
        self.is_running = False

    def trace_on(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> fx.Graph:
        """Return the graph of the forward code, with the defaults of all arguments after the inputs."""
        parameters = list(signature(module.forward).parameters.values())[len(inputs) :]
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._inputs = iter(inputs)
        attributes = set(vars(module))
        with _recorded_constructors(self):
            graph = self.trace(module, concrete_args=defaults or None)
        for node in graph.nodes:
            if node.op != "output":
                self._result_of(node)
        for name in set(vars(module)) - attributes:  # fx stores tensors that the forward code creates
            delattr(module, name)
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in HANDLERS or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        if self.is_running:
            return forward(*args, **kwargs)
        self.path.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        self.path.pop()
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.is_running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **options: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *others, **options)
        self._result_of(proxy.node)
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _RunningProxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.number_of(obj))

    def iter(self, obj: Any) -> Iterator[Any]:
        return iter([obj[number] for number in range(len(obj))])

    def number_of(self, proxy: fx.Proxy) -> Any:
        """Return the number of a proxy for use in control flow.

        Raises:
            TraceError: If it is a tensor.
        """
        value = self.results[proxy.node]
        if isinstance(value, torch.Tensor):
            raise TraceError("its control flow depends on the values of a tensor")
        self.decisions.append(proxy.node)
        return value

    def _result_of(self, node: fx.Node) -> Any:
        """Return the result of a node, which is run once."""
        if node not in self.results:
            self.results[node] = self._run(node)
        return self.results[node]

    def _run(self, node: fx.Node) -> Any:
        def convert(leaf: Any) -> Any:
            return self._result_of(leaf) if isinstance(leaf, fx.Node) else leaf

        if node.op == "placeholder":
            return next(self._inputs, node.args[0] if node.args else None)
        self.is_running = True
        try:
            if node.op == "get_attr":
                holder, _, name = str(node.target).rpartition(".")
                return getattr(self.root.get_submodule(holder), name)
            layer = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
            return apply_node(node, layer, map_leaves(convert, node.args), map_leaves(convert, node.kwargs))
        finally:
            self.is_running = False


@contextmanager
def _recorded_constructors(tracer: RunningTracer) -> Iterator[None]:
    """Record functions that create tensors of sizes that are numbers of the graph; torch refuses them otherwise."""
    originals = {name: getattr(torch, name) for name in CONSTRUCTORS}

    def record(function: Callable[..., Any]) -> Callable[..., Any]:
        def create(*args: Any, **kwargs: Any) -> Any:
            has_proxies = any(isinstance(leaf, fx.Proxy) for leaf in flatten((args, kwargs)))
            if tracer.is_running or not has_proxies:
                return function(*args, **kwargs)
            return tracer.create_proxy("call_function", function, args, kwargs)

        return create

    try:
        for name, function in originals.items():
            setattr(torch, name, record(function))
        yield
    finally:
        for name, function in originals.items():
            setattr(torch, name, function)


class _Numbers:
    """Gives Python the number of a proxy."""

    tracer: Any

    def __len__(self) -> int:
        proxy: Any = self
        value = self.tracer.results[proxy.node]
        return len(value) if not isinstance(value, torch.Tensor) else int(proxy.size(0))

    def __index__(self) -> int:
        return self.tracer.number_of(self)

    def __int__(self) -> int:
        return int(self.tracer.number_of(self))

    def __float__(self) -> float:
        return float(self.tracer.number_of(self))


class _RunningProxy(_Numbers, fx.Proxy):
    """Records operators in place as such; fx would record `x += y` as `x = x + y`."""

    def __getattr__(self, k: str) -> Any:
        return _RunningAttribute(self, k)


def _record_in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: _RunningProxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return apply


for function in IN_PLACE_OPERATORS:
    setattr(_RunningProxy, f"__{function.__name__}__", _record_in_place(function))


class _RunningAttribute(_Numbers, Attribute):
    pass
