"""Functions that merge several tensors: index by index, or one after the other."""

import operator
from typing import Any

import numpy as np
import torch

from poise.compaction import placement
from poise.compaction.calls import Call, Tensor
from poise.compaction.handlers import register
from poise.torch.compaction.handlers import run_on_constants, spellings
from poise.torch.compaction.nodes import IN_PLACE_OPERATORS

FUNCTIONS = (
    *("add", "sub", "subtract", "rsub", "div", "divide", "true_divide", "floor_divide", "remainder", "pow", "maximum"),
    *("minimum", "fmod", "where", "masked_fill", "lerp", "eq", "ne", "lt", "le", "gt", "ge", "logical_and"),
    *("logical_or", "logical_xor", "bitwise_and", "bitwise_or", "addcmul", "addcdiv"),
)
OPERATORS = (
    *(operator.add, operator.sub, operator.truediv, operator.floordiv, operator.mod, operator.pow, operator.neg),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.and_, operator.or_),
    *(operator.invert, operator.abs, *(each for each in IN_PLACE_OPERATORS if each is not operator.imul)),
)
KNOWN_ARGUMENTS = (Tensor, int, float, bool, complex, str, type(None), torch.dtype)


@register(*OPERATORS, *spellings(*FUNCTIONS))
class TorchElementwiseMerge(placement.ElementwiseMerge):
    """Index j of the output is a function of index j of every input, which is the function itself."""

    def __init__(self) -> None:
        super().__init__(lambda *constants: np.nan)

    def supports(self, call: Call) -> bool:
        are_known = all(isinstance(leaf, KNOWN_ARGUMENTS) for leaf in call.arguments.leaves)
        are_followed = any(tensor.axis is not None for tensor in call.inputs)
        return are_known and are_followed and len(call.outputs) == 1

    def find_constants(self, call: Call) -> None:
        constants = [
            call.input_constants(number) if len(call.input_units.get(number, ())) else np.full(1, np.nan)
            for number in range(len(call.inputs))
        ]
        size = call.outputs[0].constants.shape
        call.outputs[0].constants = np.broadcast_to(self.merge_constants(call, constants), size)

    def merge_constants(self, call: Call, constants: list[np.ndarray]) -> np.ndarray:
        """Return the constants of the output."""
        return run_on_constants(call, constants)


@register(operator.mul, operator.imul, *spellings("mul", "multiply"))
class Product(TorchElementwiseMerge):
    """A product is zero where any factor is zero, even if the others are not constant."""

    def merge_constants(self, call: Call, constants: list[np.ndarray]) -> np.ndarray:
        is_zero = np.any([values == 0 for values in np.broadcast_arrays(*constants)], axis=0)
        return np.where(is_zero, 0.0, super().merge_constants(call, constants))


@register(*spellings("cat", "concat", "concatenate"))
class TorchConcatenation(placement.Concatenation):
    """Puts tensors one after the other, along the axis of their units or along another one."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and isinstance(self._named_axis(call), int)

    def axis(self, call: Call) -> int:
        return self._named_axis(call) % len(call.outputs[0].shape)

    def _named_axis(self, call: Call) -> Any:
        return call.arguments.get(1, "dim", call.arguments.get(1, "axis", 0))
