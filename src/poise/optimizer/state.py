"""What a `PenalizedOptimizer` keeps: rules, strengths, targets, records and their variables."""

from dataclasses import dataclass, field
from typing import Any

from poise.optimizer.metrics import Metric
from poise.optimizer.records import Records
from poise.optimizer.saved_state import RECORDS
from poise.optimizer.strengths import Strengths
from poise.optimizer.targets import Target
from poise.rules.rule import Rule


@dataclass
class State:
    """What a `PenalizedOptimizer` keeps, in one object that no backend wraps or tracks.

    Attributes:
        rules: The rules, with names that differ.
        metric: The metric of the inner optimizer if a penalty acts by its prox in the metric of the step, else None.
        strengths: The current strengths.
        targets: What is penalized; empty before the optimizer is built.
        records: The recorded values and forces; None before the optimizer is built.
        records_values: Whether every step records the values of the penalties.
        variables: All variables of the wrapper by their names, which are tuples that start with a kind.
        resolved: What the rules resolved to, or will be restored to on build.
    """

    rules: list[Rule]
    metric: Metric | None
    strengths: Strengths
    targets: list[Target] = field(default_factory=list)
    records: Records | None = None
    records_values: bool = False
    variables: dict[tuple, Any] = field(default_factory=dict)
    resolved: dict | None = None

    def name_variables(self, averages: list[Any]) -> None:
        """Set `variables`: by kind, rule and number of the trained variable, so that they can be saved by name."""
        names = [rule.name for rule in self.rules]
        variables: dict[tuple, Any] = {("strength", names[n]): v for n, v in self.strengths.variables.items()}
        for target in self.targets:
            variables |= {("start", names[n], target.index): v for n, v in target.anchors}
            if target.trace is not None:
                variables["step trace", target.index] = target.trace
        variables |= {("average", number): v for number, v in enumerate(averages) if v is not None}
        if self.records is not None:
            variables |= {(RECORDS, name): v for name, v in self.records.variables.items()}
        self.variables = variables
