"""The model of a path, rebuilt from its configuration, and the names of its parts."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import keras
import numpy as np

from poise._keras_internals import without_tensorflow
from poise.compaction.inputs import InputKernel, input_kernels
from poise.layer_state import State
from poise.path.training import Lanes
from poise.rules.layers import info_of, register_layers
from poise.rules.members import path_of, unique_names
from poise.rules.rule import Rule


class ModelBuilder:
    """Build the model whose weights the lanes trained, and name its parts.

    Args:
        architecture: the model as `model_config` returns it.
        state: state of its layers before training, in which the weights of the lanes replace the first ones.
        lanes: the lanes of the path.
        rules: rules under which they were trained.
        resolved: what the rules resolved to (`Plan.config`).
        names: names of the inputs. None: their positions.
        safe_mode: whether to refuse Python code in the architecture, as for `keras.saving.load_model`.
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
        """Return a new model, in the state of the original one before training.

        Raises:
            ValueError: If Keras cannot rebuild it, or rebuilds another.
        """
        model = build_model(self.architecture, self._safe_mode)
        shapes = [tuple(weight.shape) for weight in model.weights]
        trained = [weight.shape[2:] for weight in self._lanes.weights]
        if shapes != trained:
            raise ValueError(
                f"Keras rebuilds the model of the path with weights of the shapes {shapes} instead of {trained}. Give "
                "every layer a get_config from which it is restored."
            )
        self._state.load_into(model)
        return model

    @cached_property
    def model(self) -> keras.Model:
        """A model that is built once, for uses to which its weights do not matter."""
        model = self.build()
        register_layers([model])
        return model

    @cached_property
    def totals(self) -> dict[str, float]:
        """Numbers of inputs (`features`), `units` and `weights`; NaN if unknown."""
        totals = {"features": np.nan, "units": np.nan, "weights": np.nan}
        if self._penalized and all(self._penalized.values()):
            shapes = {path: [self._shape(at) for at in places] for path, places in self._penalized.items()}
            totals["weights"] = float(sum(np.prod(shape) for parts in shapes.values() for shape in parts))
            matrices = [path for path, parts in shapes.items() if path not in self._joint and len(parts[0]) > 1]
            joint = sum(self._groups(path)[0] for path in shapes if path in self._joint)
            totals["units"] = float(sum(self._outputs(self._penalized[path][0]) for path in matrices) + joint)
        if self._lanes.features is not None:
            totals["features"] = float(self._lanes.features.shape[2])
        return totals

    @property
    def grouped(self) -> list[str]:
        """Paths of the penalized variables whose sizes are group sizes."""
        return [
            path
            for path, places in self._penalized.items()
            if path in self._joint or (places and self._groups(path) != self._shape(places[0]))
        ]

    def label(self, path: str, index: tuple[int, ...]) -> str:
        """Return the name of a group or an entry of `Lanes.sizes[path]`: the input's name, if it belongs to one."""
        if path in self._joint:
            return f"{path} {index[0]}"
        plain = f"{'/'.join(path.split('/')[-2:])} {', '.join(map(str, index))}"
        for kernel in self._kernels:
            number, axis, inputs = kernel.position, kernel.axis, kernel.inputs
            if [number] != self._penalized[path]:
                continue
            shape, groups = self._shape(number), self._groups(path)
            if groups == shape:
                others = [str(i) for other, i in enumerate(index) if other != axis and shape[other] > 1]
                return " → ".join([self._input(int(inputs[index[axis]])), *([", ".join(others)] if others else [])])
            # As many groups as inputs, and neither an axis nor the outputs as many: they are not units or lists.
            if groups == (shape[axis],) and shape.count(shape[axis]) == 1 and self._outputs(number) != shape[axis]:
                return self._input(int(inputs[index[0]]))
        return plain

    def rename_sizes(self, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Return sizes by the variable paths of the rebuilt model; the sizes of a joint rule, by the rule's name."""
        weights = self.model.weights
        known = self._penalized
        paths = [path if path in self._joint else path_of(weights[places[0]]) for path, places in known.items()]
        names = zip(known, unique_names(paths), strict=True)
        return {name: sizes[path] for path, name in names if path in sizes}

    @cached_property
    def _kernels(self) -> list[InputKernel]:
        return input_kernels(self.model) or []

    @cached_property
    def _penalized(self) -> dict[str, list[int]]:
        """Maps the names of `Lanes.sizes` to the positions of their variables in `model.weights`."""
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

    def _shape(self, position: int) -> tuple[int, ...]:
        return self._lanes.weights[position].shape[2:]

    def _outputs(self, position: int) -> int:
        """Return the number of outputs of a kernel."""
        outputs = info_of(self.model.weights[position]).sides.outputs
        return self._shape(position)[-1] if outputs is None else outputs.count

    def _groups(self, path: str) -> tuple[int, ...]:
        return self._lanes.sizes[path].shape[2:]

    def _input(self, number: int) -> str:
        return f"input {number}" if self._names is None else str(self._names[number])


def model_config(model: keras.Model) -> dict:
    """Return what Keras needs to rebuild a model, without how it and the models inside it were compiled."""
    with without_tensorflow(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of lambdas
        return _without_compilation(keras.saving.serialize_keras_object(model))


def _without_compilation(config: Any) -> Any:
    if isinstance(config, dict):
        is_object = "class_name" in config
        return {
            key: _without_compilation(part)
            for key, part in config.items()
            if not (is_object and key == "compile_config")
        }
    return [_without_compilation(part) for part in config] if isinstance(config, list) else config


def build_model(config: dict, safe_mode: bool) -> keras.Model:
    """Return a new model.

    Raises:
        ValueError: If Keras cannot rebuild it, such as one with a layer that is not registered.
    """
    with explain_failure("The model of the path"):
        # A copy, because Keras writes into what it reads.
        return keras.saving.deserialize_keras_object(deepcopy(config), safe_mode=safe_mode)


@contextlib.contextmanager
def explain_failure(what: str) -> Iterator[None]:
    """Turn what Keras raises when it cannot rebuild something into a ValueError with the reason only."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # Keras quotes the whole architecture before the reason.
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].split(" Full object config: ")[0].split("\n")[0]
        raise ValueError(f"{what} cannot be rebuilt: {reason}") from error
