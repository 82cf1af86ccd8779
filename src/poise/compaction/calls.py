"""The graph of a model of any framework: calls of layers on tensors, in the order in which they run."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from poise.compaction.units import Units


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph, with the units along one of its axes.

    Attributes:
        shape: Shape, with None for the batch and for unknown sizes.
        dtype: Name of the dtype.
        axis: Axis along which its units lie, or None if its units are not followed.
        units: (size of the axis,) numbers of the units.
        constants: (size,) value of a unit that is the same at all positions and for all data, NaN for other units.
        needed: (size,) whether an output of the model depends on the unit.
        origin: What the tensor is, for messages, if its units are not followed.
    """

    shape: tuple[Any, ...]
    dtype: str = "float32"
    axis: Any = None
    units: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    constants: np.ndarray = field(default_factory=lambda: np.zeros(0))
    needed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    origin: str = ""

    def carry(self, axis: int | None, units: np.ndarray) -> None:
        """Set the axis and its units, of which nothing else is known yet."""
        self.axis, self.units = axis, units
        self.reset()

    def reset(self) -> None:
        """Forget which units are constant and which are needed."""
        self.constants, self.needed = np.full(len(self.units), np.nan), np.zeros(len(self.units), bool)


@dataclass(eq=False)
class Call:
    """One use of a layer.

    Attributes:
        layer: Layer or another operation.
        inputs: Tensors among its arguments, in their order.
        outputs: Tensors that it returns.
        arguments: The graph's record of the call's arguments.
        graph: Graph that holds the call.
        is_training: Whether `training` is set in the call or in the call of a model around it. Dropout is then on and
            batch normalization uses the statistics of the batch, also in inference.
        handler: Handler of the layer (see `poise.compaction.handlers`).
        input_units: Maps the number of an input to the units along the axis that the layer works on (see `take_units`).
            Where the tensor carries units along another axis, these are new and pinned, and never constant.
        within: By name, tensors inside the layer that carry units of their own, such as the heads of an attention.
    """

    layer: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    arguments: Any
    graph: "CallGraph"
    is_training: bool = False
    handler: Any = None
    input_units: dict[int, np.ndarray] = field(default_factory=dict)
    within: dict[str, Tensor] = field(default_factory=dict)
    _off_axis: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.graph.name_of(self.layer)

    @property
    def description(self) -> str:
        """The name and the class of the layer, for messages."""
        return self.graph.describe(self.layer)

    @property
    def input_names(self) -> list[str | None]:
        """The keyword of every input; None if the input is positional."""
        return self.graph.input_names(self)

    @property
    def side_inputs(self) -> list[int]:
        """The numbers of the inputs whose units the layer does not take, such as a mask."""
        return [number for number in range(len(self.inputs)) if number not in self.input_units]

    @property
    def form(self) -> tuple:
        """What two calls of a layer must have in common so that their units correspond."""
        read = [(number, len(units), self.inputs[number].axis) for number, units in self.input_units.items()]
        made = [(tensor.axis, len(tensor.units)) for tensor in self.outputs]
        return self.handler, self.input_names, read, made

    def take_units(self, number: int, axis: int) -> np.ndarray:
        """Return the units of an input along an axis; if it carries units along another axis, all of them stay."""
        tensor = self.inputs[number]
        axis %= len(tensor.shape)
        if tensor.axis == axis:
            self.input_units[number] = tensor.units
        else:
            self.graph.units.pin(
                tensor.units, f"{self.name!r} operates on an axis other than the one that holds these units"
            )
            self.graph.units.mark_untraceable(tensor.units)
            size = tensor.shape[axis]
            self.input_units[number] = self.graph.units.create(size or 0)
            unknown = f"its units lie along an axis that {self.graph.compact_name} does not track"
            self.graph.units.pin(self.input_units[number], tensor.origin or unknown)
            self._off_axis.add(number)
        return self.input_units[number]

    def input_constants(self, number: int) -> np.ndarray:
        """Return the constants of an input along the axis that the layer works on."""
        unknown = np.full(len(self.input_units[number]), np.nan)
        return unknown if number in self._off_axis else self.inputs[number].constants

    def foldable_constants(self, number: int) -> np.ndarray:
        """Return the constants that are the same in all calls of the layer, so that its bias can absorb them."""
        constants = self.input_constants(number)
        for call in self.graph.calls_of(self.layer):
            if call.form != self.form:
                return np.full(len(constants), np.nan)
            constants = np.where(constants == call.input_constants(number), constants, np.nan)
        return constants if self.graph.can_absorb(self.layer) else np.where(constants == 0, 0.0, np.nan)

    def removed_constants(self, number: int, stays: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the constants of the units that are removed, and 0 for the others."""
        constants = self.foldable_constants(number)
        return np.where(stays(self.input_units[number]) | np.isnan(constants), 0.0, constants)

    def mark_needed(self, number: int, needed: np.ndarray) -> None:
        """Record which of an input's units the layer needs."""
        tensor = self.inputs[number]
        tensor.needed |= needed.any() if number in self._off_axis else needed

    def value(self, variable: Any, is_exact: bool = False) -> np.ndarray:
        """Return a weight as float64. Entries that count as zero are zero, unless `is_exact`."""
        return self.graph.exact(variable) if is_exact else self.graph.value(variable)


class CallGraph(ABC):
    """The calls of a model in the order in which they run. A subclass reads the models of one framework.

    Args:
        tolerance: Weights of at most this absolute value count as zero. Default: 0.
    """

    compact_name: ClassVar[str] = "poise.compact"
    """The public function that users call, for messages."""

    def __init__(self, tolerance: float = 0.0) -> None:
        self.units = Units()
        self.calls: list[Call] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._tolerance = tolerance
        self._exact: dict[int, np.ndarray] = {}
        self._by_layer: dict[int, list[Call]] = {}

    @abstractmethod
    def name_of(self, layer: Any) -> str:
        """Return the name of a layer."""

    @abstractmethod
    def has_weights(self, layer: Any) -> bool:
        """Whether a layer has weights."""

    @abstractmethod
    def input_names(self, call: Call) -> list[str | None]:
        """Return the keyword of every input of a call; None if the input is positional."""

    @abstractmethod
    def read_variable(self, variable: Any) -> np.ndarray:
        """Return the value of a variable as float64."""

    @abstractmethod
    def unknown_axis(self, shape: tuple[Any, ...]) -> int | None:
        """Return the axis along which the units of a tensor lie if no handler knows it, or None to not follow them."""

    def can_absorb(self, layer: Any) -> bool:
        """Whether the biases of a layer can absorb constants; otherwise another layer uses them too."""
        return True

    def describe(self, layer: Any) -> str:
        """Return the name and the class of a layer, for messages."""
        return f"{self.name_of(layer)!r} ({type(layer).__name__})"

    def add_call(self, call: Call) -> None:
        """Append a call."""
        self.calls.append(call)
        self._by_layer.setdefault(id(call.layer), []).append(call)

    def calls_of(self, layer: Any) -> list[Call]:
        """Return all calls of a layer."""
        return self._by_layer[id(layer)]

    @property
    def layers(self) -> list:
        """Every layer or operation once, in the order of its first call."""
        return [calls[0].layer for calls in self._by_layer.values()]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, those inside of layers included."""
        calls = [tensor for call in self.calls for tensor in (*call.outputs, *call.within.values())]
        return [*self.inputs, *calls]

    def set_values(self, values: dict[int, np.ndarray]) -> None:
        """Use other values of variables, by the id of the variable."""
        self._exact = {key: value.astype("float64") for key, value in values.items()}

    def exact(self, variable: Any) -> np.ndarray:
        """Return the value of a variable as float64."""
        if id(variable) not in self._exact:
            self._exact[id(variable)] = self.read_variable(variable)
        return self._exact[id(variable)]

    def value(self, variable: Any) -> np.ndarray:
        """Return the value of a variable as float64, with zeros for entries that count as zero."""
        value = self.exact(variable)
        return np.where(np.abs(value) <= self._tolerance, 0.0, value) if self._tolerance else value
