"""Units and the sets of units that can only be removed together.

A unit is a number. Every tensor of a graph carries units along one of its axes (the features of a Dense layer, the
channels of a convolution), one per index of that axis. Units that can only be removed together are joined: index j of
all branches of a sum, or the features that a Reshape makes of one channel. Joined units form a set, which is removed
or kept as a whole.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Units:
    """Creates units and records which of them are joined, which have to stay, and why."""

    def __init__(self) -> None:
        self._count = 0
        self._joined: list[tuple[np.ndarray, np.ndarray]] = []
        self._pinned: list[tuple[np.ndarray, str]] = []
        self._untraceable: list[np.ndarray] = []

    def create(self, count: int) -> np.ndarray:
        """Create (count,) units that are joined with nothing."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def join(self, units: np.ndarray, others: np.ndarray) -> None:
        """Join two arrays of units, both (count,), element by element."""
        self._joined.append((units, others))

    def pin(self, units: np.ndarray, why: str) -> None:
        """Keep units in any case, for the reason `why`."""
        self._pinned.append((units, why))

    def mark_untraceable(self, units: np.ndarray) -> None:
        """Record that it is not known which of these units, one by one, the following layers read."""
        self._untraceable.append(units)

    def form_sets(self) -> "UnitSets":
        """Return the sets of joined units, with what is pinned so far."""
        pairs = [np.concatenate(side) for side in zip(*self._joined, strict=True)] or [np.zeros(0, int)] * 2
        links = coo_array((np.ones(len(pairs[0]), bool), tuple(pairs)), shape=(self._count, self._count))
        count, root = connected_components(links, directed=False)
        why = np.full(count, "", dtype=object)
        for units, reason in reversed(self._pinned):
            why[root[units]] = reason
        is_untraceable = np.zeros(count, bool)
        for units in self._untraceable:
            is_untraceable[root[units]] = True
        return UnitSets(root, why, is_untraceable)


class UnitSets:
    """Sets of joined units.

    Attributes:
        root: (units,) number of the set of every unit.
        why: (sets,) reason why a set has to stay, "" where there is none.
        is_untraceable: (sets,) whether it is not known which of the units, one by one, the following layers read.
    """

    def __init__(self, root: np.ndarray, why: np.ndarray, is_untraceable: np.ndarray) -> None:
        self.root = root
        self.why = why
        self.is_untraceable = is_untraceable

    @property
    def is_pinned(self) -> np.ndarray:
        """(sets,) whether a set has to stay."""
        return self.why != ""
