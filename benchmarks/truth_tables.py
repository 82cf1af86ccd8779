"""Synthetic tables with known relevant columns, and real tables with added nuisance columns.

Every function takes a seed and returns a `Table`. The relevant columns of the synthetic tables come first, except in
those of `SHUFFLED`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn import datasets


@dataclass(frozen=True, eq=False)
class Table:
    """A table.

    Args:
        x: (rows, columns).
        y: (rows,) numbers, or classes.
        relevant: The positions of the relevant columns; for a real table, those of its original columns.
        is_class: Whether y holds classes.
    """

    x: np.ndarray
    y: np.ndarray
    relevant: frozenset[int]
    is_class: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of table.

    Args:
        make: Returns the table of a seed.
        runs: The number of seeds.
        measure: `"exact"` (exact support), `"top"` (share of the k relevant columns among the k first ones),
            `"nuisance"` (share of the nuisance columns kept, and the score on test rows), or `"score"`.
        published: A dict from a method to its published value.
        source: Where it is published.
    """

    make: Callable[[int], Table]
    runs: int
    measure: str
    published: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


# ---------------------------------------------------------------------- absolute differences


def pairs(count: int, seed: int, rows: int = 500, columns: int = 50) -> Table:
    """y = Σ 10·|x_i − x_j| over count/2 disjoint pairs + N(0, 1)."""
    random = np.random.default_rng([seed, count, rows])
    x = random.normal(size=(rows, columns))
    y = random.normal(size=rows)
    for first in range(0, count, 2):
        y += 10.0 * np.abs(x[:, first] - x[:, first + 1])
    return Table(x, y, frozenset(range(count)))


def nested(rows: int, seed: int, columns: int = 50) -> Table:
    """y = |10·|x₂ − x₁| − 10·|x₄ − x₃|| + N(0, 1)."""
    random = np.random.default_rng([seed, 4, rows])
    x = random.normal(size=(rows, columns))
    inner = 10.0 * np.abs(x[:, 1] - x[:, 0]) - 10.0 * np.abs(x[:, 3] - x[:, 2])
    return Table(x, np.abs(inner) + random.normal(size=rows), frozenset(range(4)))


# ---------------------------------------------------------------------- rings and exclusive ors


def shapes(name: str, columns: int, seed: int, rows: int = 1000) -> Table:
    """Two classes in uniform columns: a ring, an exclusive or, and combinations of these with a noisy sum."""
    random = np.random.default_rng(seed)
    x = random.random((rows, columns))
    distance = np.abs(np.hypot(x[:, 0] - 0.5, x[:, 1] - 0.5) - 0.35)

    def exclusive_or(first: int, threshold: float) -> np.ndarray:
        return (x[:, first] - 0.5) * (0.5 - x[:, first + 1]) >= threshold

    if name == "ring":
        return Table(x, distance <= 0.1151, frozenset(range(2)), True)
    if name == "xor":
        return Table(x, exclusive_or(0, 0.0), frozenset(range(2)), True)
    if name == "ring+xor":
        return Table(x, (distance <= 0.0704) | exclusive_or(2, 0.0337), frozenset(range(4)), True)
    total = x[:, 4] + x[:, 5] + random.normal(0, 0.2, rows) >= 1.4074
    return Table(x, (distance <= 0.0479) | exclusive_or(2, 0.0598) | total, frozenset(range(6)), True)


# ---------------------------------------------------------------------- smooth signals in correlated columns


def correlated(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Normal columns of which neighbors have the correlation 0.5."""
    x = random.normal(size=(rows, columns))
    for j in range(1, columns):
        x[:, j] = 0.5 * x[:, j - 1] + np.sqrt(0.75) * x[:, j]
    return x


def mixed(x: np.ndarray) -> np.ndarray:
    """Each sine has 7% of the variance, each square 12%, the product 24%."""
    waves = sum(1.5 * np.sin(1.5 * x[:, j]) for j in range(1, 8, 2))
    return waves + sum(x[:, j] ** 2 for j in range(0, 8, 2)) + 2 * x[:, 8] * x[:, 9]


def additive(x: np.ndarray) -> np.ndarray:
    return np.sum([1.5 * np.sin(1.5 * x[:, j]) if j % 2 else x[:, j] ** 2 for j in range(10)], axis=0)


def weak(x: np.ndarray) -> np.ndarray:
    """Like `mixed`, but each sine has 4% of the variance, of which a straight line explains little."""
    waves = [np.sin(2 * x[:, j]) if j % 2 else x[:, j] ** 2 for j in range(8)]
    return np.sum(waves, axis=0) + 2 * x[:, 8] * x[:, 9]


def products(x: np.ndarray) -> np.ndarray:
    return x[:, 0] * x[:, 1] + x[:, 1] * x[:, 2] + x[:, 0] * x[:, 2]


def linear(x: np.ndarray) -> np.ndarray:
    return x[:, :10] @ np.linspace(1.0, 2.0, 10)


def nothing(x: np.ndarray) -> np.ndarray:
    return np.zeros(len(x))


Signal = Callable[[np.ndarray], np.ndarray]
SHUFFLED: dict[str, tuple[int, int, int, Signal, float, int]] = {
    "mixed": (600, 200, 10, mixed, 0.3, 0),
    "weak sines": (600, 200, 10, weak, 0.3, 0),
    "additive": (600, 200, 10, additive, 0.3, 0),
    "products": (600, 200, 3, products, 0.3, 0),
    "linear": (200, 2000, 10, linear, 0.3, 0),
    "many rows": (3000, 20, 10, additive, 0.3, 0),
    "two classes": (600, 50, 10, linear, 0.3, 2),
    "four classes": (600, 50, 10, mixed, 0.3, 4),
    "high noise": (600, 200, 10, mixed, 1.5, 0),
    "no signal": (600, 200, 0, nothing, 1.0, 0),
}
"""Rows, columns, relevant columns, signal, noise in standard deviations of the signal, and classes."""


def smooth(name: str, seed: int) -> Table:
    """A signal in a random subset of standardized columns."""
    rows, columns, count, signal, noise, classes = SHUFFLED[name]
    random = np.random.default_rng(seed)
    order = random.permutation(columns)
    x = correlated(random, rows, columns)
    true = signal(x[:, order])
    true = (true - true.mean()) / (true.std() or 1.0)
    y = true + noise * random.normal(size=rows)
    if classes:
        y = np.digitize(y, np.quantile(y, np.linspace(0, 1, classes + 1)[1:-1]))
    return Table(x, y, frozenset(order[:count].tolist()), classes > 0)


# ---------------------------------------------------------------------- real tables with nuisance columns

REAL = ("diabetes", "breast_cancer", "wine", "iris")
MADE: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "friedman1": lambda seed: datasets.make_friedman1(500, noise=1.0, random_state=seed),
    "friedman2": lambda seed: datasets.make_friedman2(500, noise=125.0, random_state=seed),
    "friedman3": lambda seed: datasets.make_friedman3(500, noise=0.1, random_state=seed),
    "steps": lambda seed: _make_steps(np.random.default_rng(seed)),
    "sums": lambda seed: _make_sums(np.random.default_rng(seed)),
}
"""Generated tables whose predictions are scored."""


def _make_steps(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Five columns with random steps, and five without effect."""
    x = random.normal(size=(500, 10))
    y = sum(random.normal(size=5)[np.digitize(x[:, j], [-1.0, -0.3, 0.3, 1.0])] for j in range(5))
    return x, y + 0.5 * random.normal(size=500)


def _make_sums(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A smooth function of two weighted sums of eight columns."""
    x = random.normal(size=(500, 8))
    return x, np.tanh(x @ random.normal(size=8)) * (x @ random.normal(size=8)) + 0.5 * random.normal(size=500)


def scored(name: str, seed: int) -> Table:
    """A table on which only predictions are scored."""
    if name in MADE:
        x, y = MADE[name](seed)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x[:, x.std(axis=0) > 0]
    return Table(x, y, frozenset(range(x.shape[1])), name not in ("diabetes", *MADE))


def with_nuisance(name: str, nuisance: str, seed: int) -> Table:
    """A real table with added nuisance columns, as many as it has original columns.

    Random columns are normal. Corrupted columns are copies of original columns in which about half of the values are
    replaced by normal numbers. Second-order columns are products of two original columns. This is the protocol of
    Cherepanova et al. 2023.
    """
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    random = np.random.default_rng([seed, len(nuisance)])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    columns = x.shape[1]
    if nuisance == "random":
        added = random.normal(size=x.shape)
    elif nuisance == "corrupted":
        added = np.where(random.random(x.shape) < 0.5, random.normal(size=x.shape), x)
    else:
        added = x[:, random.integers(columns, size=columns)] * x[:, random.integers(columns, size=columns)]
    return Table(np.concatenate([x, added], axis=1), y, frozenset(range(columns)), name != "diabetes")


HARDER = "arXiv 2411.17180, 200 runs"
PASSEMIERS = "10.1038/s41598-024-82583-5"


def _published_pairs(harder: str, lassonet: str, boruta: str) -> dict[str, str]:
    return {"HarderLASSO": harder, "LassoNetCV": lassonet, "XGBoost + Boruta": boruta}


KINDS: dict[str, Kind] = {
    "pairs 0": Kind(partial(pairs, 0), 50, "exact", _published_pairs(".99", ".69", "1.00"), HARDER),
    "pairs 4": Kind(partial(pairs, 4), 50, "exact", _published_pairs("1.00", "0", ".79"), HARDER),
    "pairs 8": Kind(partial(pairs, 8), 50, "exact"),
    "pairs 10": Kind(partial(pairs, 10), 50, "exact", _published_pairs(".94", "0", "0"), HARDER),
    "pairs 14": Kind(partial(pairs, 14), 50, "exact", _published_pairs(".21", "0", "0"), HARDER),
    "nested 300": Kind(partial(nested, 300), 50, "exact", {"HarderLASSO, one / two layers": ".72 / .14"}, HARDER),
    "nested 500": Kind(partial(nested, 500), 50, "exact"),
    **{
        f"{name} {columns}": Kind(
            partial(shapes, name, columns), 6, "top",
            {"best, a forest": forests, "best network": ".33 to .56"} if forests else {}, PASSEMIERS if forests else "",
        )
        for columns, forests in ((128, ".75 to 1.00"), (512, ".64 to .97"), (2048, ""))
        for name in ("ring", "xor", "ring+xor", "ring+xor+sum")
    },
    **{name: Kind(partial(smooth, name), 10, "exact") for name in SHUFFLED if name != "no signal"},
    "no signal": Kind(partial(smooth, "no signal"), 20, "exact"),
    **{
        f"{name}, {nuisance}": Kind(partial(with_nuisance, name, nuisance), 5, "nuisance")
        for name in REAL
        for nuisance in ("random", "corrupted", "second order")
    },
    **{name: Kind(partial(scored, name), 5, "score") for name in (*REAL, "digits", *MADE)},
}  # fmt: skip
