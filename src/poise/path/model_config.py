"""The model of a path, rebuilt from its architecture, and what its weights are called."""

import contextlib
import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property

import keras
import numpy as np
from keras.src.utils import module_utils

from poise.compaction.inputs import input_kernels
from poise.layer_state import State
from poise.path.training import Lanes
from poise.rules.layers import info_of, learn
from poise.rules.members import path_of, unique_names
from poise.rules.rule import Rule


class Blueprint:
    """How to build the model whose weights the lanes trained.

    Args:
        architecture: the model as `keras.saving.serialize_keras_object` tells it. How it was compiled is left out, and
            with it the optimizer.
        state: of its layers before training, in which the lanes' weights then take the places of the first ones.
        lanes: what the lanes left behind.
        rules: under which they were trained.
        resolved: what the rules resolved to (`Plan.config`).
        names: of the inputs; None for their positions.
        safe_mode: whether an architecture that holds Python code is refused, as for `keras.saving.load_model`.
    """

    def __init__(
        self,
        architecture: dict,
        state: State,
        lanes: Lanes,
        rules: Sequence[Rule],
        resolved: dict,
        names: Sequence[str] | None,
        safe_mode: bool,
    ):
        self.architecture = {key: value for key, value in architecture.items() if key != "compile_config"}
        self._state = state
        self._lanes = lanes
        self._resolved = resolved
        joint = [rule.name for rule in rules if rule.penalty.members is not None]
        self._joint = {name: resolved["rules"][name] for name in joint}
        self._names = names
        self._safe_mode = safe_mode

    def build(self) -> keras.Model:
        """A new model, in the state in which the lanes found theirs.

        Raises:
            ValueError: if Keras cannot rebuild it, or rebuilds another.
        """
        model = rebuilt(self.architecture, self._safe_mode)
        shapes = [tuple(weight.shape) for weight in model.weights]
        trained = [weight.shape[2:] for weight in self._lanes.weights]
        if shapes != trained:
            raise ValueError(
                f"The model of the path was rebuilt with weights of the shapes {shapes}, and those trained have "
                f"{trained}. A layer of it does not restore itself from its get_config."
            )
        self._state.load_into(model)
        return model

    @cached_property
    def model(self) -> keras.Model:
        """One model that is built once, for what its weights do not matter to."""
        model = self.build()
        learn([model])
        return model

    @cached_property
    def totals(self) -> dict[str, float]:
        """How many inputs (`features`), `units` and `weights` there are; NaN where that is unknown."""
        totals = {"features": np.nan, "units": np.nan, "weights": np.nan}
        if self._penalized and all(self._penalized.values()):
            shapes = {path: [self._shape(at) for at in places] for path, places in self._penalized.items()}
            totals["weights"] = float(sum(np.prod(shape) for own in shapes.values() for shape in own))
            matrices = [path for path, own in shapes.items() if path not in self._joint and len(own[0]) > 1]
            joint = sum(self._groups(path)[0] for path in shapes if path in self._joint)
            totals["units"] = float(sum(self._outputs(self._penalized[path][0]) for path in matrices) + joint)
        if self._lanes.features is not None:
            totals["features"] = float(self._lanes.features.shape[2])
        return totals

    @property
    def grouped(self) -> list[str]:
        """The paths of the penalized variables whose sizes are those of groups."""
        return [
            path
            for path, places in self._penalized.items()
            if path in self._joint or (places and self._groups(path) != self._shape(places[0]))
        ]

    def label(self, path: str, index: tuple[int, ...]) -> str:
        """What a group or an entry of `Lanes.sizes[path]` is called: by its input, if it belongs to one."""
        if path in self._joint:
            return f"{path} {index[0]}"
        plain = f"{'/'.join(path.split('/')[-2:])} {', '.join(map(str, index))}"
        for kernel in self._kernels:
            number, axis, inputs = kernel.position, kernel.axis, kernel.inputs
            if [number] != self._penalized[path]:
                continue
            shape, groups = self._shape(number), self._groups(path)
            if groups == shape:
                rest = [str(i) for other, i in enumerate(index) if other != axis and shape[other] > 1]
                return " → ".join([self._input(int(inputs[index[axis]])), *([", ".join(rest)] if rest else [])])
            # As many groups as inputs, and neither an axis nor the outputs as many: they are not units or lists.
            if groups == (shape[axis],) and shape.count(shape[axis]) == 1 and self._outputs(number) != shape[axis]:
                return self._input(int(inputs[index[0]]))
        return plain

    def by_own_paths(self, sizes: dict) -> dict:
        """Sizes by the paths that the variables have in the rebuilt model, those of a joint rule by its name."""
        weights = self.model.weights
        known = self._penalized
        own = [path if path in self._joint else path_of(weights[places[0]]) for path, places in known.items()]
        return dict(zip(unique_names(own), (sizes[path] for path in known), strict=True))

    @cached_property
    def _kernels(self):
        return input_kernels(self.model) or []

    @cached_property
    def _penalized(self):
        """By the names of `Lanes.sizes` the positions of its variables in `model.weights`."""
        weights, order = self._resolved["weights"], self._resolved["trained"]
        targets = {}
        for name, places in self._resolved["rules"].items():
            if name in self._joint:
                targets[tuple(places)] = name
            else:
                targets |= {(place,): weights[place][0] for place in places if place in order}
        in_order = sorted(targets, key=lambda places: order.index(places[0]))
        names = unique_names([targets[places] for places in in_order])
        return {name: list(at) for name, at in zip(names, in_order, strict=True) if name in self._lanes.sizes}

    def _shape(self, position):
        return self._lanes.weights[position].shape[2:]

    def _outputs(self, position):
        """How many outputs a kernel has."""
        outputs = info_of(self.model.weights[position]).sides.outputs
        return self._shape(position)[-1] if outputs is None else outputs.count

    def _groups(self, path):
        return self._lanes.sizes[path].shape[2:]

    def _input(self, number):
        return f"input {number}" if self._names is None else str(self._names[number])


@contextlib.contextmanager
def without_tensorflow():
    """Within it Keras writes objects down without TensorFlow, where nothing has imported that yet.

    Keras asks of every value whether it is TensorFlow's, and imports TensorFlow for that, which takes seconds. Before
    it is imported no value can be.
    """
    lazy = module_utils.tensorflow
    is_unknown = "tensorflow" not in sys.modules and getattr(lazy, "_available", False) is None
    if is_unknown:
        lazy._available = False
    try:
        yield
    finally:
        if is_unknown:
            lazy._available = None


def rebuilt(architecture: dict, safe_mode: bool) -> keras.Model:
    """A new model of an architecture.

    Raises:
        ValueError: if Keras cannot rebuild it, such as one with a layer that is not registered.
    """
    with restoring("The model of the path"):
        # A copy, because Keras writes into what it reads.
        return keras.saving.deserialize_keras_object(deepcopy(architecture), safe_mode=safe_mode)


@contextlib.contextmanager
def restoring(what: str):
    """Turns what Keras raises when it cannot rebuild something into a ValueError with the reason alone."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # Keras quotes the whole architecture, with the reason behind it.
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].split(" Full object config: ")[0].split("\n")[0]
        raise ValueError(f"{what} cannot be rebuilt: {reason}") from error
