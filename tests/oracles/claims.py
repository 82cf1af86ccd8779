"""The sentences of a study: each is parsed, and its numbers and claims are compared with the results."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from poise.study.report.key_numbers import list_key_numbers
from poise.study.report.numbers import format_interval, format_number
from poise.study.report.sentences import name_inside
from poise.study.result import Study

NUMBER = r"−?\d[\d.,]*(?:e[+−]?\d+)?"


class Claims:
    """Checks the sentences of one study against its results."""

    def __init__(self, study: Study) -> None:
        self.study, self.findings = study, study.findings
        self.best = self.findings.best
        self.results: Any = study.results
        self.comparisons: Any = study.comparisons
        self.row: Any = self.results.loc[study.chosen]
        self.judged = self.findings[study.description["verdict"]["judged"]]
        self.judged_row: Any = self.results.loc[self.judged.name]
        self.has_classes = study.description["data"]["task"] in ("binary", "multiclass")
        self.over: Any = self.comparisons.loc["none"]
        self.shows_loss = False

    def check_answer(self) -> None:
        """Check every sentence of the answer."""
        for paragraph in self.study.answer:
            for sentence in re.split(r"(?<=\.) (?=[A-Z“])", paragraph):
                self.check(sentence)

    def check(self, sentence: str) -> None:
        for pattern, method in self.patterns():
            match = re.fullmatch(pattern, sentence)
            if match:
                method(*match.groups())
                return
        pytest.fail(f"nobody checks {sentence!r}")

    def patterns(self) -> list[tuple[str, Callable[..., None]]]:
        n = f"({NUMBER})"
        interval = f"{n} to {n}"
        return [
            (
                r"It is not certain that the network predicts better than (the mean|the class frequencies)\.",
                self.no_better,
            ),
            (
                r"(.*?)(?:, chosen by request,)? (helps|hurts|makes no clear difference) here: "
                rf"with (.*), the held-out (.*) is (?:the same as|{n} (lower|higher) than) with early stopping alone\.",
                self.headline,
            ),
            (
                rf"The 95% confidence interval of the difference is {interval}(, which contains zero)?\.",
                self.gain_interval,
            ),
            (
                rf"The held-out loss, on which the verdict is based, is (?:the same|{n} (lower|higher))\.",
                lambda shown, direction: self.change(shown, direction, -self.over["loss_gain"]),
            ),
            (
                rf"The held-out (.*) is (?:the same|{n} (lower|higher), which (may be chance|is more than chance explains))\.",
                self.other_score,
            ),
            (
                rf"The test rows are consistent with this: the loss is {n} without (.*) and {n} with it\.",
                lambda *numbers: self.test_rows(True, *numbers),
            ),
            (
                rf"The test rows disagree: the loss is {n} without (.*) and {n} with it\.",
                lambda *numbers: self.test_rows(False, *numbers),
            ),
            (r"Their gain differs from the held-out gain by more than chance explains\.", lambda: None),
            (r"The network without (.*) was chosen instead\.", self.instead),
            (rf"(?:The|Its) (R²|accuracy|explained deviance) on the test rows is {n}\.", self.score),
            (rf"The 95% confidence interval is {interval}\.", self.score_interval),
            (r"The most frequent class has (\d+)% of these rows\.", self.majority),
            (r"(.*) predicts? better here than the network(?: with (.*))?\.", self.better),
            (r"(.*) predicts? worse than the network(?: with (.*))?\.", self.worse),
            (
                r"(.*) predicts? neither clearly better nor clearly worse\.",
                lambda titles: self.references(titles, "unclear"),
            ),
            (r"No penalty was requested, so the network without a penalty was chosen\.", self.only_baseline),
            (
                r"All (\d+) columns are needed to predict, because no penalty in this study can drop a column\.",
                self.no_selector,
            ),
            (r"(.*) selects (\d+) of (\d+) columns: (.*)\.", self.selected),
            (r"(.*) selects (all \d+ columns|the only column)\.", self.all_selected),
            (r"(.*) selects no column\.", self.none_selected),
            (r"Columns are selected at (.*)\.", self.selection_strength),
            (
                r"The stability, the share of the (\d+) training runs that select a column, is (?:at least )?(\d+)% for "
                r"each selected column\.",
                lambda runs, share: self.stability(share, runs, True),
            ),
            (
                r"The stability, the share of the (\d+) training runs that select a column, is at most (\d+)%\.",
                lambda runs, share: self.stability(share, runs, False),
            ),
            (r"It is at most (\d+)% for any other column\.", lambda share: self.stability(share, None, False)),
            (r"No training run selects any (?:other )?column\.", lambda: self.stability("0", None, False)),
            (
                r"“(.*)” is selected, but in only (\d+)% of the training runs: it is an uncertain choice\.",
                lambda name, share: self.uncertain([name], share, True),
            ),
            (
                r"(.*) are selected, but each in fewer than half of the training runs: they are uncertain choices\.",
                lambda names: self.uncertain(re.findall("“(.*?)”", names), None, True),
            ),
            (
                r"“(.*)” is not selected, although (\d+)% of the training runs select it: it may matter as well\.",
                lambda name, share: self.uncertain([name], share, False),
            ),
            (
                r"(.*) are not selected, although more than half of the training runs select each of them: they may "
                r"matter as well\.",
                lambda names: self.uncertain(re.findall("“(.*?)”", names), None, False),
            ),
            (r"The saved network is that of the selected columns\.", self.saved_is_selected),
            (r"The saved network (needs .*) to predict\.", self.needs),
            (r"It (needs .*) to predict\.", self.needs),
            (rf"For the network of the selected columns, the (.*) on the test rows is {n}\.", self.selected_score),
            (rf"The chosen (strength|rate) of (.*) is {n}, which is inside the grid\.", self.inside),
            (
                rf"The chosen (strength|rate) of (.*) is {n}, the (weakest|strongest|lowest|highest) of the grid; a "
                r"(weaker|stronger|lower|higher) one might predict better\.",
                self.at_an_end,
            ),
            (r"Without a penalty there is no strength to choose\.", self.no_penalty),
            (rf"The held-out loss is {n} ± {n} \(mean and standard error over the folds\)\.", self.held_out),
            (rf"Training (converged|nearly converged) \(relative residual {n}\)\.", self.converged),
            (rf"Training did not converge \(relative residual {n}\)\.", lambda shown: self.converged("", shown)),
            (r"More steps may help\.", lambda: None),
            (r"It is unknown whether training converged\.", self.unknown),
            (
                r"Training stopped after (\d+) steps, because the held-out loss no longer fell\.",
                self.stopped,
            ),
            (r"Training took all (\d+) steps\.", self.took_all_steps),
        ]

    # ------------------------------------------------------------ the verdict

    def no_better(self, constant: str) -> None:
        assert constant == self.constant()
        assert not self.comparisons.loc["mean", "loss_gain_low"] > 0

    def headline(self, subject: str, verb: str, name: str, what: str, shown: str | None, direction: str | None) -> None:
        assert verb == self.verb("loss_gain")
        is_requested = self.study.description["settings"]["choose"] is not None
        assert subject.lower() == (name_inside(self.judged).lower() if is_requested else self.kind())
        assert name == ("it" if is_requested else name_inside(self.judged))
        # The score is shown only if its interval supports the same verdict as the loss.
        assert what == (self.row["score_name"] if self.verb("score_gain") == verb else "loss")
        self.shows_loss = what == "loss"
        self.change(shown, direction, -self.over["loss_gain"] if self.shows_loss else self.over["score_gain"])

    def kind(self) -> str:
        return "dropout" if self.judged.name == "dropout" else "a penalty"

    def instead(self, kind: str) -> None:
        assert kind == self.kind()
        assert self.study.chosen == "none"
        assert self.over["loss_gain_high"] < 0

    def verb(self, name: str) -> str:
        low, high = self.over[f"{name}_low"], self.over[f"{name}_high"]
        return "helps" if low > 0 else "hurts" if high < 0 else "makes no clear difference"

    def change(self, shown: str | None, direction: str | None, change: float) -> None:
        assert (shown or "0") == format_number(abs(change), 2)
        assert direction == (None if shown is None else "lower" if change < 0 else "higher")

    def gain_interval(self, low: str, high: str, contains_zero: str | None) -> None:
        ends = (
            (-self.over["loss_gain_high"], -self.over["loss_gain_low"])
            if self.shows_loss
            else (self.over["score_gain_low"], self.over["score_gain_high"])
        )
        assert (low, high) == tuple(format_number(end, 2) for end in ends)
        assert bool(contains_zero) == (ends[0] <= 0 <= ends[1])

    def other_score(self, name: str, shown: str | None, direction: str | None, doubt: str | None) -> None:
        assert self.shows_loss
        assert name == self.row["score_name"]
        self.change(shown, direction, self.over["score_gain"])
        is_certain = self.over["score_gain_low"] > 0 or self.over["score_gain_high"] < 0
        assert doubt == (None if shown is None else "is more than chance explains" if is_certain else "may be chance")

    def test_rows(self, agrees: bool, without: str, kind: str, penalized: str) -> None:
        assert kind == self.kind()
        row = self.judged_row
        assert without == format_number(self.results.loc["none", "test_loss"], 2)
        assert penalized == format_number(row["test_loss"], 2)
        errors = [
            (row["gain_high"] - row["gain_low"]) / 3.92,
            (self.over["loss_gain_high"] - self.over["loss_gain_low"]) / 3.92,
        ]
        difference = abs(row["gain"] - self.over["loss_gain"])
        assert agrees == (difference <= 1.96 * np.hypot(*errors))

    def score(self, name: str, shown: str) -> None:
        assert name == self.row["score_name"]
        assert shown == format_number(self.row["score"], 2)

    def score_interval(self, low: str, high: str) -> None:
        assert f"{low} to {high}" == format_interval(self.best.score, 2)

    def majority(self, shown: str) -> None:
        assert shown == f"{100 * self.study.metrics['majority rate']:.0f}"

    def better(self, titles: str, name: str | None) -> None:
        assert name == (None if self.study.chosen == "none" else name_inside(self.best))
        self.references(titles, "hurts")

    def worse(self, titles: str, name: str | None) -> None:
        assert name == (None if self.study.chosen == "none" else name_inside(self.best))
        self.references(titles, "helps")

    def references(self, titles: str, outcome: str) -> None:
        """The gain of the network over a reference model that is better is negative: it "hurts"."""
        over = self.comparisons
        expected = {
            title
            for name, title in self.study.references["title"].items()
            if name != "mean" and over.loc[name, "outcome"] == outcome
        }
        assert {title.strip().lower().removeprefix("a ") for title in re.split(", | and ", titles)} == {
            title.lower() for title in expected
        }

    def check_key_numbers(self) -> None:
        """The three numbers of the report are those of the tables and of the sentences."""
        gain, score, columns = list_key_numbers(self.findings)
        has_penalty = self.findings.verdict.judged != "none"
        over = self.over if has_penalty else self.comparisons.loc["mean"]
        name = "loss_gain" if has_penalty and self.shows_loss else "score_gain"
        assert gain.value == ("+" if over[name] > 0 else "") + format_number(over[name], 2)
        ends = tuple(format_number(over[f"{name}_{end}"], 2) for end in ("low", "high"))
        assert gain.details == (f"95% interval {ends[0]} to {ends[1]}",)
        assert gain.label.endswith("early stopping alone" if has_penalty else self.constant())
        assert score.value == format_number(self.results.loc[self.findings.saved.name, "score"])
        references = self.study.references
        others = references.drop(index="mean")["score"]
        assert [
            float(line.split(": ")[1].replace("−", "-").replace(",", "")) for line in score.details
        ] == pytest.approx([references.loc["mean", "score"], others.max()], rel=0.01)
        if self.study.selected_columns is not None:
            assert columns.value == f"{len(self.study.selected_columns)} of {self.used()}"
            assert columns.label == f"columns selected by {name_inside(self.selector)}"
        elif self.study.chosen == "none":
            assert columns.value == str(self.used())
        else:
            assert columns.value == format_number(self.best.strength, 2)
            assert columns.label == f"{self.quantity()} of {name_inside(self.best)}"

    def constant(self) -> str:
        return "the class frequencies" if self.has_classes else "the mean"

    # ------------------------------------------------------------ the selection

    @property
    def selector(self) -> Any:
        return self.findings.selector

    def used(self) -> int:
        return sum(column["kind"] != "set aside" for column in self.study.description["data"]["columns"])

    def no_selector(self, total: str) -> None:
        assert self.study.selected_columns is None
        assert int(total) == self.used() == len(self.findings.needed_columns)

    def selected(self, name: str, count: str, total: str, names: str) -> None:
        assert name.lower() == name_inside(self.selector).lower()
        assert (int(count), int(total)) == (len(self.selector.selected), self.used())
        listed = re.findall("“(.*?)”", names)
        assert listed == [*self.selector.selected][:5]

    def all_selected(self, name: str, _: str) -> None:
        assert name.lower() == name_inside(self.selector).lower()
        assert len(self.selector.selected) == self.used()

    def none_selected(self, name: str) -> None:
        assert name.lower() == name_inside(self.selector).lower()
        assert not self.selector.selected

    def selection_strength(self, claim: str) -> None:
        table = self.selector.path.table
        loss, lowest = table["val_loss"], table["val_loss"].idxmin()
        within_error = table.loc[loss <= loss[lowest] + table.loc[lowest, "val_se"], "strength"].max()
        if claim == "the largest strength whose held-out loss is within one standard error of the lowest":
            expected = within_error
        else:
            assert (
                claim
                == "the largest strength that keeps 95% of the decrease in held-out loss from a model without columns"
            )
            assert self.selector.path.stages
            null = loss.iloc[-1]  # the largest strength, at which no column is left
            expected = table.loc[null - loss >= 0.95 * (null - loss[lowest]), "strength"].max()
            assert expected > within_error
        assert self.selector.selection_strength == pytest.approx(expected)

    def shares(self) -> dict[str, float]:
        """The share of the training runs that read each column, by any of its inputs."""
        features = np.asarray(self.selector.path.lanes.features, bool)
        at = int(np.argmin(np.abs(self.selector.path.strengths - self.selector.selection_strength)))
        owners = np.asarray(self.selector.encoder.owners)
        return {name: features[:, at, owners == name].any(axis=1).mean() for name in dict.fromkeys(owners.tolist())}

    def stability(self, share: str, runs: str | None, is_selected: bool) -> None:
        chosen = [value for name, value in self.shares().items() if (name in self.selector.selected) == is_selected]
        assert share == f"{100 * (min if is_selected else max)(chosen):.0f}"
        assert runs is None or int(runs) == len(self.selector.path.lanes.features)

    def uncertain(self, names: list[str], share: str | None, is_selected: bool) -> None:
        assert {*names} == {
            name
            for name, value in self.shares().items()
            if (name in self.selector.selected) == is_selected and (value < 0.5 if is_selected else value > 0.5)
        }
        assert share is None or share == f"{100 * self.shares()[names[0]]:.0f}"

    def saved_is_selected(self) -> None:
        assert self.findings.saved is (self.findings.selection or self.selector)

    def needs(self, claim: str) -> None:
        """Without `sparse`, predictions need all columns; the network may read fewer."""
        total, read = self.used(), self.findings.saved.columns
        assert read is not None
        assert {*self.findings.needed_columns} >= {*read}
        assert len(self.findings.needed_columns) == total
        unread = f" (although it reads only {len(read)} of them)" if len(read) < total else ""
        assert claim == f"needs all {total} columns{unread}"

    def selected_score(self, name: str, shown: str) -> None:
        assert name == self.row["score_name"]
        selected = self.findings.selection or self.selector
        assert selected is not self.findings.saved
        assert shown == format_number(selected.score.value, 2)

    # ------------------------------------------------------------ the strength

    def quantity(self) -> str:
        return "rate" if self.best.name == "dropout" else "strength"

    def inside(self, quantity: str, name: str, shown: str) -> None:
        assert quantity == self.quantity()
        assert name == name_inside(self.best)
        assert shown == format_number(self.best.strength, 2)
        assert min(self.best.stage.strengths) < self.best.strength < max(self.best.stage.strengths)

    def at_an_end(self, quantity: str, name: str, shown: str, end: str, other: str) -> None:
        assert quantity == self.quantity()
        assert name == name_inside(self.best)
        assert shown == format_number(self.best.strength, 2)
        grid = self.best.stage.strengths
        assert self.best.strength == pytest.approx(min(grid) if end in ("weakest", "lowest") else max(grid))
        others = {
            "strength": {"weakest": "weaker", "strongest": "stronger"},
            "rate": {"lowest": "lower", "highest": "higher"},
        }
        assert other == others[quantity][end]

    def held_out(self, loss: str, error: str) -> None:
        lanes = self.best.stage.lanes.table
        folds = lanes[(lanes["fold"] >= 0) & np.isclose(lanes["strength"], self.best.strength)]["held_loss"]
        assert loss == format_number(folds.mean(), 2)
        assert error == format_number(folds.std(ddof=1) / np.sqrt(len(folds)), 2)
        assert folds.mean() == pytest.approx(self.best.stage.table["val_loss"].min())  # the lowest of the path

    def stopped(self, steps: str) -> None:
        assert int(steps) == int(self.best.row["settled"]) < self.study.description["settings"]["max_iter"]

    def took_all_steps(self, steps: str) -> None:
        assert self.best.name == "dropout"
        assert int(steps) == int(self.best.row["settled"]) == self.study.description["settings"]["max_iter"]

    def converged(self, how: str, shown: str) -> None:
        assert self.best.name != "dropout"  # no penalty balances the prediction force
        residual = self.row["relative_residual"]
        assert shown == format_number(residual, 2)
        limits = {"converged": (0.0, 1e-3), "nearly converged": (1e-3, 0.05), "": (0.05, np.inf)}[how]
        assert limits[0] <= residual <= limits[1]

    def unknown(self) -> None:
        assert not np.isfinite(self.row["relative_residual"])

    def only_baseline(self) -> None:
        assert {*self.study.results.index} == {"none", "full_training"}

    def no_penalty(self) -> None:
        assert self.study.chosen == "none"
