"""Units and which of them go together.

A unit has a number. Every tensor of a graph carries units along one axis (the features of a Dense layer, the channels
of a convolution), each index of the axis one. Units that cannot be removed but together are joined: index j of all
branches of a sum, the features of one channel after a Reshape. Joined units are one for all that follows.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Units:
    """Numbers for units, what is joined, and what has to stay, with the reason."""

    def __init__(self):
        self._count = 0
        self._joined: list[tuple[np.ndarray, np.ndarray]] = []
        self._pinned: list[tuple[np.ndarray, str]] = []

    def fresh(self, count: int) -> np.ndarray:
        """(count,) units that are joined with nothing yet."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def join(self, units: np.ndarray, others: np.ndarray):
        """Joins unit by unit; both (count,)."""
        self._joined.append((units, others))

    def pin(self, units: np.ndarray, why: str):
        """Keeps units, whatever they do."""
        self._pinned.append((units, why))

    def settle(self) -> "Joined":
        """What is joined and pinned in all."""
        pairs = [np.concatenate(side) for side in zip(*self._joined, strict=True)] or [np.zeros(0, int)] * 2
        links = coo_array((np.ones(len(pairs[0]), bool), tuple(pairs)), shape=(self._count, self._count))
        count, root = connected_components(links, directed=False)
        why = np.full(count, "", dtype=object)
        for units, reason in reversed(self._pinned):
            why[root[units]] = reason
        return Joined(root, why)


class Joined:
    """Sets of joined units.

    Attributes:
        root: (units,) the number of the set of every unit.
        why: (sets,) why a set has to stay; "" where nothing says so.
    """

    def __init__(self, root: np.ndarray, why: np.ndarray):
        self.root = root
        self.why = why

    @property
    def is_pinned(self) -> np.ndarray:
        return self.why != ""
