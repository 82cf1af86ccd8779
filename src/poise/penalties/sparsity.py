"""Constraints on the number of nonzero weights: magnitude pruning, with a schedule, and N:M sparsity.

The sets are not convex. The projection keeps the largest entries. With a step per entry, the projection in the metric
1/step would keep those of the largest w²/step instead. poise keeps the largest, as magnitude pruning does. The fixed
points of both are stationary in the same sense (Beck and Eldar 2013, "basic feasibility"): the gradient of the weights
that are kept is zero, and if there is room for more weights, so are all gradients.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from poise.penalties.axes import Axes
from poise.penalties.base import PACKAGE, Schedule, is_empty, serialize_strength
from poise.penalties.constraints import Constraint
from poise.penalties.groups import validate_groups
from poise.penalties.layouts import Layout, axes_of, layout
from poise.validation import validate_axis, validate_count, validate_number, validate_share


@keras.saving.register_keras_serializable(PACKAGE)
class TopK(Constraint):
    """Constrain a share of the weights of each variable to zero: keep the largest ones (magnitude pruning).

    Its prox sets the smallest weights to exactly zero after every step, and leaves the others as they are. A weight
    that was zero returns if a step makes it larger than one that was kept. The sparsity takes the place of the
    strength: it is read and set as `optimizer.strength[rule]`, and may follow a schedule.

    Args:
        sparsity: The share of zeros, from 0 to 1, or a `keras.optimizers.schedules.LearningRateSchedule` of the
            optimizer's iterations, such as `poise.PolynomialSparsity`. Of n weights, round(sparsity · n) are zero.
        groups: As in `GroupLasso`: keep or remove whole groups, by their 2-norms. Default: None, for single weights.
        axis: As in `GroupLasso`, for listed groups. Default: None.

    Raises:
        TypeError: If `sparsity` is neither a number nor a schedule.
        ValueError: If `sparsity` is not from 0 to 1, or the groups are not valid.

    References:
        Blumensath and Davies 2009, "Iterative hard thresholding for compressed sensing".
        Zhu and Gupta 2017, "To prune, or not to prune".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -0.5, 1.0, 2.0])
        >>> print(keras.ops.convert_to_numpy(poise.TopK(0.5).prox(w, step=1.0, strength=0.5)))
        [3. 0. 0. 2.]
    """

    strength_argument = "sparsity"
    handles_nan = False

    def __init__(self, sparsity: Any, groups: Any = None, axis: int | str | None = None) -> None:
        super().__init__(sparsity)
        self.groups, self.axis = (None, axis) if groups is None else validate_groups(groups, axis)
        if groups is None and axis is not None:
            raise ValueError(f"axis must be None without groups, got axis={axis!r}.")

    def check_strength(self, strength: Any) -> Any:
        """Return a sparsity as a float or schedule, or raise TypeError or ValueError."""
        if isinstance(strength, Schedule):
            return strength
        try:
            return validate_share("sparsity", strength)
        except TypeError:
            raise TypeError(
                f"sparsity must be a number from 0 to 1 or a keras LearningRateSchedule, got {strength!r}."
            ) from None

    def get_config(self) -> dict[str, Any]:
        return {"sparsity": serialize_strength(self.strength), "groups": self.groups, "axis": self.axis}

    def check(self, shape: Sequence[int]) -> None:
        self._layout(shape)

    def sizes(self, w: Any) -> Any:
        return ops.zeros((0,), w.dtype) if is_empty(w) else self._sizes(w)

    def _is_violated(self, w: Any, strength: Any) -> Any:
        sizes = self._sizes(w)
        is_violated = ops.sum(ops.cast(sizes > 0, "int32")) > self._count(sizes, strength)
        return self._spread(ops.logical_and(is_violated, sizes > 0), w)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        sizes = self._sizes(w)
        kept = are_largest(sizes, self._count(sizes, strength))
        return ops.where(self._spread(kept, w, outside=True), w, 0.0)

    def _distance(self, w: Any, gradient: Any, strength: Any) -> Any:
        sizes = self._sizes(w)
        has_room = ops.sum(ops.cast(sizes > 0, "int32")) < self._count(sizes, strength)
        is_free = self._spread(ops.logical_or(sizes > 0, has_room), w, outside=True)
        return ops.where(is_free, ops.abs(gradient), 0.0)

    def _layout(self, shape: Sequence[int]) -> Layout | None:
        return None if self.groups is None else layout(self, shape)

    def _sizes(self, w: Any) -> Any:
        at = self._layout(w.shape)
        return ops.reshape(ops.abs(w), (-1,)) if at is None else at.norms(w)

    def _spread(self, per_size: Any, w: Any, outside: bool = False) -> Any:
        at = self._layout(w.shape)
        return ops.reshape(per_size, w.shape) if at is None else at.spread(per_size, outside)

    def _count(self, sizes: Any, sparsity: Any) -> Any:
        """How many sizes are kept."""
        count = sizes.shape[-1]
        return count - ops.cast(ops.round(ops.clip(sparsity, 0.0, 1.0) * count), "int32")


@keras.saving.register_keras_serializable(PACKAGE)
class NofM(Constraint):
    """Constrain every block of m consecutive weights to at most n nonzero ones, such as 2:4 sparsity for GPUs.

    Its prox keeps the n largest weights of every block.

    Args:
        n: The number of weights that a block keeps, an int ≥ 1. Default: 2.
        m: The length of a block, an int > n. It must divide the length of the axis. Default: 4.
        axis: The axis along which weights are consecutive: `"inputs"` (default), `"outputs"` or an integer.

    References:
        Mishra et al. 2021, "Accelerating sparse deep neural networks".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -0.5, 1.0, 2.0])
        >>> print(keras.ops.convert_to_numpy(poise.NofM().prox(w, step=1.0, strength=1.0)))
        [3. 0. 0. 2.]
    """

    handles_nan = False

    def __init__(self, n: int = 2, m: int = 4, axis: int | str = "inputs") -> None:
        super().__init__()
        self.n, self.m = validate_count("n", n, 1), validate_count("m", m, 2)
        if self.n >= self.m:
            raise ValueError(f"n must be smaller than m, got n={n} and m={m}.")
        self.axis = validate_axis("axis", axis)

    def get_config(self) -> dict[str, Any]:
        return {"n": self.n, "m": self.m, "axis": self.axis}

    def check(self, shape: Sequence[int]) -> None:
        self._axes(shape)

    def sizes(self, w: Any) -> Any:
        return ops.reshape(ops.abs(w), (-1,))

    def _is_violated(self, w: Any, strength: Any) -> Any:
        blocks = self._blocks(w)
        return self._from_blocks(ops.logical_and(self._counts(blocks) > self.n, blocks != 0), w)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        return ops.where(self._from_blocks(are_largest(ops.abs(self._blocks(w)), self.n), w), w, 0.0)

    def _distance(self, w: Any, gradient: Any, strength: Any) -> Any:
        blocks = self._blocks(w)
        is_free = ops.logical_or(self._counts(blocks) < self.n, blocks != 0)
        return ops.where(self._from_blocks(is_free, w), ops.abs(gradient), 0.0)

    def _axes(self, shape: Sequence[int]) -> Axes:
        axes = axes_of(self, self.axis, tuple(shape))
        if axes.count % self.m:
            raise ValueError(
                f"NofM needs a multiple of m={self.m} weights along axis={self.axis!r}, got {axes.count} in a "
                f"variable of shape {tuple(shape)}. Exclude the variable from the rule, or use another m or axis."
            )
        return axes

    def _blocks(self, w: Any) -> Any:
        return ops.reshape(self._axes(w.shape).matrix(w), (-1, self.m))

    def _from_blocks(self, blocks: Any, w: Any) -> Any:
        axes = self._axes(w.shape)
        return axes.from_matrix(ops.reshape(blocks, (-1, axes.count)))

    def _counts(self, blocks: Any) -> Any:
        return ops.sum(ops.cast(blocks != 0, "int32"), axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(PACKAGE)
class PolynomialSparsity(Schedule):
    """The sparsity schedule of Zhu and Gupta, for `TopK`: fast at first, and slower towards the end.

    With p = (step − begin_step)/(end_step − begin_step), the sparsity is
    final + (initial − final)·(1 − p)^power between the two steps, 0 before them, and final after them.

    Args:
        final_sparsity: The sparsity at the end, from 0 to 1.
        end_step: The step at which it is reached, an int > `begin_step`.
        begin_step: The step at which pruning starts, an int ≥ 0. Default: 0.
        initial_sparsity: The sparsity at `begin_step`, from 0 to 1. Default: 0.0.
        power: The power > 0 of the polynomial. Default: 3, as in the paper.
        frequency: The sparsity changes at every `frequency`-th step after `begin_step`, an int ≥ 1. Default: 1.

    References:
        Zhu and Gupta 2017, "To prune, or not to prune", equation 1.

    Examples:
        >>> import poise
        >>> schedule = poise.PolynomialSparsity(0.8, end_step=1000)
        >>> [round(float(schedule(step)), 2) for step in (0, 250, 500, 1000, 2000)]
        [0.0, 0.46, 0.7, 0.8, 0.8]
    """

    def __init__(
        self,
        final_sparsity: float,
        end_step: int,
        begin_step: int = 0,
        initial_sparsity: float = 0.0,
        power: float = 3.0,
        frequency: int = 1,
    ) -> None:
        self.final_sparsity = validate_share("final_sparsity", final_sparsity)
        self.initial_sparsity = validate_share("initial_sparsity", initial_sparsity)
        self.begin_step = validate_count("begin_step", begin_step, 0)
        self.end_step = validate_count("end_step", end_step, self.begin_step + 1)
        self.power = validate_number("power", power, inclusive=False)
        self.frequency = validate_count("frequency", frequency, 1)

    def __call__(self, step: Any) -> Any:
        step = ops.convert_to_tensor(step)
        last_change = (step - self.begin_step) // self.frequency * self.frequency
        share = ops.cast(last_change, "float32") / (self.end_step - self.begin_step)
        left = ops.where(step >= self.end_step, 0.0, ops.clip(1.0 - share, 0.0, 1.0))
        sparsity = self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * ops.power(left, self.power)
        return ops.where(step < self.begin_step, 0.0, sparsity)

    def get_config(self) -> dict[str, Any]:
        names = ("final_sparsity", "end_step", "begin_step", "initial_sparsity", "power", "frequency")
        return {name: getattr(self, name) for name in names}


def are_largest(sizes: Any, count: Any) -> Any:
    """Return which entries of each row are its `count` largest, the first of equal ones: exactly `count`."""
    length = sizes.shape[-1]
    rank = ops.clip(ops.cast(length - count, "int32"), 0, length - 1)
    smallest = ops.expand_dims(ops.take(ops.sort(sizes, axis=-1), rank, axis=-1), -1)
    is_larger, is_equal = sizes > smallest, sizes == smallest
    room = count - ops.sum(ops.cast(is_larger, "int32"), axis=-1, keepdims=True)
    is_early = ops.cumsum(ops.cast(is_equal, "int32"), axis=-1) <= room
    return ops.logical_or(is_larger, ops.logical_and(is_equal, is_early))
