"""The state of a `PenalizedOptimizer`, saved and loaded by name.

The strengths, anchors, momentum traces and averages of an optimizer are identified by their rule and the position of
their variable among those that are trained, so that they cannot be mixed up. Keras saves them as a child of the
wrapper, next to the inner optimizer. The wrapper itself saves nothing: Keras's own optimizers then find no saved
variables and skip loading with a warning.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from poise._keras_internals import KerasSaveable

RECORDS = "records"
"""The kind of the variables that record steps: the only part of the state that may be missing in a file."""

INDEX = "index"
"""The entry of a file that names the others."""


class SavedState(KerasSaveable):
    """What Keras saves and loads of a `PenalizedOptimizer`.

    Args:
        name: The name of the optimizer.
        rules: The names of its rules.
        variables: Returns its variables by their names, which are tuples that start with a kind.
        is_built: Returns whether the optimizer is built.
    """

    def __init__(
        self, name: str, rules: list[Any], variables: Callable[[], dict[tuple, Any]], is_built: Callable[[], bool]
    ) -> None:
        self._name = name
        self._rules = rules
        self._variables = variables
        self._is_built = is_built

    def _obj_type(self) -> str:
        # A private method of Keras, without which it does not save the object. Keras walks the attributes of the kind
        # that it returns, of which this class has none to save.
        return "Loss"

    def save_own_variables(self, store: Any) -> None:
        if not self._is_built():
            return
        names = list(self._variables())
        text = json.dumps({"rules": self._rules, "names": names})
        store[INDEX] = np.frombuffer(text.encode(), dtype="uint8")
        for position, variable in enumerate(self._variables().values()):
            store[str(position)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Set the variables, all or none.

        Raises:
            ValueError: If the file holds the state of other rules, or of variables of other shapes.
        """
        # A file of a stock optimizer has no such state, and an optimizer that is not built has no variables for it:
        # as in Keras, the weights are loaded without the state, and the inner optimizer warns that it skips its state.
        if INDEX not in store.keys() or not self._is_built():  # noqa: SIM118
            return
        index = json.loads(np.asarray(store[INDEX]).astype("uint8").tobytes())
        if sorted(index["rules"]) != sorted(self._rules):
            raise ValueError(
                f"The saved optimizer state belongs to the rules {index['rules']}, and the optimizer "
                f"{self._name!r} has the rules {self._rules}. Use the same rules to continue, or pass "
                "skip_mismatch=True to load only the weights of the layers."
            )
        saved = {tuple(name): str(position) for position, name in enumerate(index["names"])}
        if index["rules"] != self._rules:  # what was recorded is listed in their order
            saved = {name: key for name, key in saved.items() if name[0] != RECORDS}
        variables = self._variables()
        values = {}
        for name in {**variables, **saved}:
            key, variable = saved.get(name), variables.get(name)
            value = None if key is None else store[key]
            if variable is not None and value is not None and tuple(value.shape) == tuple(variable.shape):
                values[name] = value
            elif name[0] == RECORDS:
                if variable is not None:
                    values[name] = ops.zeros(variable.shape, variable.dtype)
            else:
                raise ValueError(self._why_mismatch(name, variable, value))
        for name, value in values.items():
            variables[name].assign(value)

    def _why_mismatch(self, name: tuple, variable: Any, value: Any) -> str:
        what = " ".join(map(str, name))
        if value is None:
            mismatch = "is missing from the file"
        elif variable is None:
            mismatch = "is in the file but not in this optimizer"
        else:
            mismatch = f"has shape {tuple(value.shape)} in the file and {tuple(variable.shape)} here"
        return (
            f"The saved optimizer state does not match {self._name!r}: {what!r} {mismatch}. Build both with the same "
            "model, update and inner optimizer, or pass skip_mismatch=True to load only the weights of the layers."
        )


def copy_value(variable: Any) -> Any:
    """Return the value of a variable as a separate tensor: backends update in place or share buffers."""
    return ops.copy(ops.convert_to_tensor(variable))
