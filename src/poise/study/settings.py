"""The settings of a study."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from poise.study.candidates.penalties import DEFAULT_PENALTIES, PENALTIES, selects_columns
from poise.study.columns.encoding import AUTO, check_encoding
from poise.study.errors import DataError
from poise.study.tasks.quantiles import QUANTILES, are_quantiles

NO_PENALTY = "none"
"""The name of the baseline: no penalty, with early stopping."""
FULL_TRAINING = "full_training"
"""The name of the network without a penalty that takes all steps. It is shown, and never chosen."""
DEFAULT_SELECTION, STABLE_SELECTION = "default", "stable"
"""How columns are selected."""
SELECTION = "selection"
"""The name of the network of the selected columns, if it is another one than the candidate's that predicts."""


@dataclass(frozen=True)
class Settings:
    """The arguments of `poise.run_study` that do not describe the data.

    Raises:
        DataError: For a value that is not allowed.
    """

    penalties: tuple[str, ...] = DEFAULT_PENALTIES
    choose: str | None = None
    hidden_layer_sizes: tuple[int, ...] = (64,)
    model: str | None = None
    cv: int = 4
    strengths: int = 13
    n_init: int = 1
    max_iter: int = 800
    learning_rate: float = 0.01
    test: float = 0.2
    seed: int = 0
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    decimal: str | None = None
    text_encoding: str | None = None
    sheet: str | int | None = None
    skip_rows: int | None = None
    comment: str | None = None
    missing: tuple[str, ...] | None = None
    sparse: bool = False
    encoding: str = AUTO
    selection: str = DEFAULT_SELECTION
    max_false: float | None = None
    class_weight: str | Mapping[str, float] | None = None
    tweedie_power: float = 1.5
    quantiles: tuple[float, ...] = QUANTILES

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        known = sorted({NO_PENALTY, *self.penalties})
        limits = {
            "hidden_layer_sizes": (
                all(units >= 1 for units in self.hidden_layer_sizes),
                "be positive whole numbers, such as (64, 32), or ()",
            ),
            "cv": (self.cv >= 2, "be at least 2"),
            "strengths": (self.strengths >= 3, "be at least 3"),
            "n_init": (self.n_init >= 1, "be at least 1"),
            "max_iter": (self.max_iter >= 1, "be at least 1"),
            "learning_rate": (0.0 < self.learning_rate < float("inf"), "be positive and finite, such as 0.01"),
            "test": (0.0 < self.test < 1.0, "lie between 0 and 1 (exclusive), such as 0.2"),
            "seed": (0 <= self.seed < 2**32, "lie between 0 and 2**32 - 1"),
            "selection": (
                self.selection in (DEFAULT_SELECTION, STABLE_SELECTION),
                f"be {DEFAULT_SELECTION!r} or {STABLE_SELECTION!r}",
            ),
            "max_false": (
                self.max_false is None or (isinstance(self.max_false, Real) and 0.0 < self.max_false < float("inf")),
                "be a positive number, such as 1.0",
            ),
            "tweedie_power": (1.0 < self.tweedie_power < 2.0, "lie between 1 and 2 (exclusive), such as 1.5"),
            "quantiles": (
                are_quantiles(self.quantiles),
                "be ascending numbers between 0 and 1 (exclusive), such as 0.1,0.5,0.9",
            ),
            "choose": (self.choose is None or self.choose in known, f"be one of {', '.join(known)}"),
        }
        for name, (is_allowed, demand) in limits.items():
            if not is_allowed:
                raise DataError(f"{name} must {demand}, got {getattr(self, name)!r}.", name)
        drops_columns = any(name in PENALTIES and PENALTIES[name].drops_columns for name in self.penalties)
        if self.max_false is not None and not drops_columns:
            raise DataError(
                f"max_false needs a penalty that drops columns, got {', '.join(self.penalties) or 'none'}. Add the "
                "penalty 'adaptive' or 'group'.",
                "max_false",
            )
        if self.sparse and not any(map(selects_columns, self.penalties)):
            raise DataError(
                f"sparse needs a penalty that selects columns, got {', '.join(self.penalties) or 'none'}. Add the "
                "penalty 'adaptive' or 'group'.",
                "sparse",
            )
