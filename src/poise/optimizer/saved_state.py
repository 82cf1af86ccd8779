"""The state of a `PenalizedOptimizer`, saved and loaded by name.

The strengths, anchors, momentum traces and averages of an optimizer are identified by their rule and the position of
their variable among those that are trained, so that they cannot be loaded into each other. Keras saves them beside the
inner optimizer, as a child of the wrapper. The wrapper itself saves nothing: a stock optimizer of Keras, which counts
the variables saved in its place, then sees none and skips them with its own warning.
"""

import json
from collections.abc import Callable

import numpy as np
from keras import ops

from poise._keras_internals import KerasSaveable

RECORDS = "records"
"""What was recorded of the steps so far: the one part of the state that may be missing in a file."""

INDEX = "index"
"""The entry of a file that names the others."""


class SavedState(KerasSaveable):
    """What Keras saves and loads of a `PenalizedOptimizer`.

    Args:
        name: that of the optimizer.
        rules: the names of its rules.
        variables: gives its variables by their names, which are tuples of strings and numbers that start with a kind.
        is_built: whether it has all of them.
    """

    def __init__(self, name: str, rules: list[str], variables: Callable[[], dict], is_built: Callable[[], bool]):
        self._name = name
        self._rules = rules
        self._variables = variables
        self._is_built = is_built

    def _obj_type(self):
        return "Loss"  # Keras walks the attributes of a few kinds of objects, and this one has none to walk

    def save_own_variables(self, store):
        if not self._is_built():
            return
        names = list(self._variables())
        text = json.dumps({"rules": self._rules, "names": names})
        store[INDEX] = np.frombuffer(text.encode(), dtype="uint8")
        for position, variable in enumerate(self._variables().values()):
            store[str(position)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        """Sets the variables, all or none.

        Raises:
            ValueError: if the file holds the state of other rules, or of variables of other shapes.
        """
        # A file of a stock optimizer has no such state, and an optimizer that is not built has no variables for it:
        # as in Keras, the weights are loaded without the state, and the inner optimizer warns where it skips its own.
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
        own = self._variables()
        values = {}
        for name in {**own, **saved}:
            key, variable = saved.get(name), own.get(name)
            value = None if key is None else store[key]
            if variable is not None and value is not None and tuple(value.shape) == tuple(variable.shape):
                values[name] = value
            elif name[0] == RECORDS:
                if variable is not None:
                    values[name] = ops.zeros(variable.shape, variable.dtype)
            else:
                raise ValueError(self._why_mismatch(name, variable, value))
        for name, value in values.items():
            own[name].assign(value)

    def _why_mismatch(self, name, variable, value):
        what = " ".join(map(str, name))
        saved = "nothing" if value is None else f"an array of shape {tuple(value.shape)}"
        here = "no such variable" if variable is None else f"the shape {tuple(variable.shape)}"
        return (
            f"The saved optimizer state does not match: for {what!r} the file has {saved}, but the optimizer "
            f"{self._name!r} has {here}. Build both with the same model, update and inner optimizer, or pass "
            "skip_mismatch=True to load only the weights of the layers."
        )


def copied(variable):
    """The value of a variable as a tensor of its own: backends update in place or share buffers."""
    return ops.copy(ops.convert_to_tensor(variable))
