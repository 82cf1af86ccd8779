"""The penalties that a study can compare, by name, and the rules that each makes for a network.

Dropout is compared with them, in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from poise.compaction.input_groups import make_input_rules
from poise.penalties import L1, L2, MCP, SCAD, ElasticNet, GroupLasso, Penalty, SparseGroupLasso
from poise.rules.rule import PENALIZED_BY_DEFAULT, Rule
from poise.study.errors import DataError

DROPOUT = "dropout"

Groups = list[list[int]]


@dataclass(frozen=True)
class StudyPenalty:
    """A penalty that a study can compare.

    Args:
        title: Its name in tables and sentences.
        meaning: What it does, in a few words.
        make: A function that returns the penalty; it takes the groups of inputs if the penalty drops columns.
        drops_columns: Whether it acts on the first kernels with one group per column, and L2 on the others.
        adaptive: The number of adaptive stages. Default: 0.
        first_stage: The name of the penalty whose path is the first of the stages. Default: `None`.
        quantity: What the values of its path are called. Default: `"strength"`.
    """

    title: str
    meaning: str
    make: Callable[..., Penalty]
    drops_columns: bool = False
    adaptive: int = 0
    first_stage: str | None = None
    quantity: str = "strength"


def _make_group_lasso(groups: Groups) -> GroupLasso:
    return GroupLasso(1.0, groups=groups, axis="inputs", factors=[1.0] * len(groups))


def _make_sparse_group_lasso(groups: Groups) -> SparseGroupLasso:
    return SparseGroupLasso(1.0, groups=groups, axis="inputs", factors=[1.0] * len(groups))


PENALTIES = {
    "l2": StudyPenalty("L2", "shrinks all weights", L2),
    "l1": StudyPenalty("L1", "sets single weights to zero", L1),
    "group": StudyPenalty(
        "Group lasso", "drops whole columns, with L2 on later layers", _make_group_lasso, drops_columns=True
    ),
    "adaptive": StudyPenalty(
        "Adaptive group lasso", "the group lasso, reweighted twice", _make_group_lasso, drops_columns=True, adaptive=2,
        first_stage="group",
    ),
    "elasticnet": StudyPenalty("Elastic net", "L1 and L2 combined", lambda: ElasticNet(l1=1.0, l2=1.0)),
    "sparse_group": StudyPenalty(
        "Sparse group lasso", "drops columns and single weights", _make_sparse_group_lasso, drops_columns=True
    ),
    "mcp": StudyPenalty("MCP", "sets single weights to zero and leaves large ones unchanged", MCP),
    "scad": StudyPenalty("SCAD", "sets single weights to zero and leaves large ones unchanged", SCAD),
    # Its path has L2 at strength 0, as the networks without a penalty have it.
    DROPOUT: StudyPenalty("Dropout", "sets random hidden units to zero in training", L2, quantity="rate"),
}  # fmt: skip
"""To add a penalty, add one entry here: `poise.run_study`, the command and the estimators accept its name.

Only `"dropout"` is not for the estimators.
"""
DEFAULT_PENALTIES = ("l2", "l1", "group", "adaptive", DROPOUT)


def get_penalty(name: str) -> StudyPenalty:
    """Return the penalty of a name.

    Raises:
        DataError: If there is none.
    """
    if name not in PENALTIES:
        raise DataError(f"Unknown penalty {name!r}. Use one of {', '.join(PENALTIES)}.", "penalties")
    return PENALTIES[name]


def selects_columns(name: str) -> bool:
    """Return whether a penalty can set all weights that read a column to zero."""
    penalty = get_penalty(name)
    return penalty.drops_columns or not penalty.make().smooth


def find_shared_path(name: str, names: Sequence[str]) -> str:
    """Return the penalty in a study whose path contains the path of `name`.

    An adaptive penalty starts with the path of its first stage, so that the latter need not be trained again.
    """
    return next((other for other in names if get_penalty(other).first_stage == name), name)


def make_rules(name: str, model: keras.Model, owners: Sequence[str]) -> list[Rule]:
    """Return the rules of a penalty for a network.

    Args:
        name: The name of the penalty.
        model: The network.
        owners: The column that each input of the network comes from.

    Raises:
        DataError: If the penalty drops columns, and the kernels that read the inputs cannot be determined.
    """
    penalty = get_penalty(name)
    if not penalty.drops_columns:
        return [Rule(list(PENALIZED_BY_DEFAULT), penalty.make())]
    groups: dict[str, list[int]] = {}
    for position, column in enumerate(owners):
        groups.setdefault(column, []).append(position)
    try:
        return make_input_rules(model, penalty.make([*groups.values()]))
    except ValueError:
        raise DataError(
            f"Penalty {name!r} drops columns, which needs a model whose inputs go into dense layers; poise cannot "
            f"determine which kernels of {model.name!r} read them. Use the penalty 'l2' or 'l1' instead.",
            "penalties",
        ) from None
