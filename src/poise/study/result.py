"""The result of a study: what it says, the network to predict with, and a folder to keep both in."""

import os
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import pandas as pd

from poise.study.columns.encoding import Encoder
from poise.study.errors import quote_names
from poise.study.file_options import FileOptions
from poise.study.loading import read_study
from poise.study.predictions import predict_rows
from poise.study.report.comparison import compare_candidates, list_networks
from poise.study.report.names import quantity_of
from poise.study.report.numbers import format_number
from poise.study.sources import Source, load, take_frame

if TYPE_CHECKING:
    from poise.study.findings import Candidate, Findings

RECORDED_OPTIONS = ("sheet", "skip_rows", "comment")
"""Options of the study's file that hold for files of new rows too, unless others are set."""
NOT_RESULTS = ("stage", "selection_strength", "selected", "stability")
STYLE = "border-bottom:1px solid;border-color:color-mix(in srgb,currentColor 25%,transparent);padding:.2em .6em"


class Study:
    """The result of `poise.run_study`, or of `Study.load`.

    Printing a study shows its verdict; a notebook also shows the comparison of the networks.

    Attributes:
        description: The content of study.json: data, settings, candidates, verdict and versions.
        model: The saved network without its dead units, a plain Keras model of encoded rows: that of the chosen
            candidate, or, with `sparse=True`, that of the selected columns, without the inputs that it does not read.
        encoder: Turns columns into inputs. The network takes those in `description["inputs"]`.
        folder: The folder that the study was loaded from; `None` for a new study.

    Examples:
        >>> import poise
        >>> study = poise.run_study("wine", penalties=["l2"], strengths=3, cv=2, max_iter=20)
        >>> study.chosen
        'l2'
        >>> study.predict("wine").columns[:2].tolist()
        ['target', 'probability of class_0']
    """

    def __init__(
        self,
        description: Mapping,
        model: keras.Model,
        encoder: Encoder,
        *,
        findings: "Findings | None" = None,
        folder: Path | None = None,
    ) -> None:
        self.description = description
        self.model = model
        self.encoder = encoder
        self._findings = findings
        self.folder = folder

    # ------------------------------------------------------------ what it says

    @property
    def headline(self) -> str:
        """The verdict in one sentence, the first one of `answer`."""
        return self.description["headline"]

    @property
    def answer(self) -> tuple[str, ...]:
        """Three paragraphs: whether a penalty helps, which columns are selected, and how certain the strength is."""
        return tuple(self.description["answer"])

    @property
    def chosen(self) -> str:
        """The name of the chosen candidate, such as `"l2"`, or `"none"`. Its network predicts, unless `sparse=True`."""
        return self.description["chosen"]

    @property
    def selected_columns(self) -> tuple[str, ...] | None:
        """The columns that the study selects; `None` if no penalty in it selects columns."""
        name = self.description["selector"]
        candidates = {candidate["candidate"]: candidate for candidate in self.description["candidates"]}
        return None if name is None else tuple(candidates[name]["selected"])

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """The columns that predictions need: all in use, or, with `sparse=True`, those that the saved network reads."""
        return tuple(self.description["needed_columns"])

    @property
    def importance(self) -> pd.DataFrame:
        """One row per column, the most important first.

        `importance` is how much the loss of the saved network on test rows increases when the values of the column are
        permuted (the mean of 10 permutations), and `error` its standard error. `direction` is how the mean prediction
        changes with the column: `"up"`, `"down"`, `"mixed"` or `"flat"`, and for categories the highest and the lowest.
        With two classes it is that of the probability of the second, with more classes the class is named. `selected`
        is whether the study selects the column, and `stability` the share of training runs that select it. In a table
        with more than 100 columns, some are not measured: NaN and `""`.
        """
        table = pd.DataFrame(self.description["importance"]).set_index("column")
        return table.astype(dict.fromkeys(["importance", "error", "stability"], "float64"))

    @property
    def stability_selection(self) -> pd.DataFrame | None:
        """One row per column, the most stable first; `None` without `max_false`.

        `share`: the share of the 50 random halves of the training rows that select the column. Each half selects at
        most `description["stability_selection"]["per_half"]` columns. `selected`: whether `share` is at least 0.9. The
        expected number of false columns among the selected ones is at most
        `description["stability_selection"]["expected_false"]`, which is at most `max_false`. A column is false if a
        half selects it with at most the probability of a random choice.

        The bound (Shah and Samworth 2013, for r-concave distributions) needs rows, or groups of rows, that are
        independent. A useless column that is correlated with a useful one may be selected more often than by a random
        choice, and does not count as false.
        """
        found = self.description["stability_selection"]
        if found is None:
            return None
        share = pd.Series(found["share"], name="share", dtype="float64").rename_axis("column")
        table = share.to_frame().assign(selected=share.index.isin(found["selected"]))
        return table.sort_values("share", ascending=False, kind="stable")

    @property
    def outcome(self) -> str | None:
        """Whether the judged penalty `"helps"`, `"hurts"` or makes no clear difference (`"unclear"`).

        It is judged by the held-out loss of all training rows, compared with a network without a penalty, with early
        stopping; `None` if there is no penalty. If it hurts, the network without a penalty is chosen.
        """
        return self.description["verdict"]["outcome"]

    @property
    def comparisons(self) -> pd.DataFrame:
        """How much better the choice predicts held-out rows than the baseline (`"none"`) and each reference model.

        One row for each: `outcome`, and `loss_gain` and `score_gain` with the ends of their 95% confidence intervals.
        """
        return pd.DataFrame(self.description["verdict"]["comparisons"]).set_index("over")

    @property
    def references(self) -> pd.DataFrame:
        """One row per reference model (mean, linear model, boosted trees): losses, score and gain with intervals."""
        table = pd.DataFrame(self.description["references"]).set_index("name")
        return table.astype(dict.fromkeys(table.columns.difference(["title"]), "float64"))

    @property
    def metrics(self) -> dict[str, float]:
        """Further scores of the saved network on the test rows, by name.

        Regression: `RMSE` and `MAE`, in units of the target. Counts, gamma and tweedie: also `deviance`. Quantiles:
        `pinball loss`, and coverages, such as `10% quantile coverage`, the share of rows at or below a quantile.
        Classes: `majority rate` (the share of the most frequent class), `log loss` and `AUC` (NaN if a class has no
        test rows).
        """
        return {name: float("nan") if value is None else value for name, value in self.description["metrics"].items()}

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per network: strength, losses, score and gain with their intervals, and the columns that it reads.

        The networks are those of the candidates that predict. If the network of the selected columns is another one, it
        has its own row, `"selection"`.
        """
        if self._findings is not None:
            return self._findings.results
        table = pd.DataFrame(list_networks(self.description)).drop(columns=list(NOT_RESULTS))
        table = table.set_index("candidate")
        numbers = table.columns.difference(["title", "encoding", "score_name", "zeros"])
        return table.astype(dict.fromkeys(numbers, "float64"))

    @property
    def findings(self) -> "Findings":
        """Every candidate, path and training in full.

        Raises:
            ValueError: If the study was loaded from a folder, which does not keep them.
        """
        if self._findings is None:
            raise ValueError(
                "A study that was loaded from a folder has no paths. Use study.results, or run the study again."
            )
        return self._findings

    def __getitem__(self, name: str) -> "Candidate":
        """Return a candidate with its path; `"selection"` is the network of the selected columns.

        Raises:
            ValueError: If the study was loaded from a folder, which keeps no paths.
        """
        return self.findings[name]

    @property
    def candidates(self) -> "tuple[Candidate, ...]":
        """All candidates with their paths; not for a study that was loaded from a folder."""
        return self.findings.candidates

    @property
    def best(self) -> "Candidate":
        """The chosen candidate with its path; not for a study that was loaded from a folder."""
        return self.findings.best

    # ------------------------------------------------------------ predict, save, load

    def predict(
        self,
        data: Source,
        *,
        delimiter: str | None = None,
        decimal: str | None = None,
        text_encoding: str | None = None,
        sheet: str | int | None = None,
        skip_rows: int | None = None,
        comment: str | None = None,
    ) -> pd.DataFrame:
        """Predict the target of new rows.

        Args:
            data: A table in memory or a file, as for `poise.run_study`, with the needed columns in any order; other
                columns are ignored.
            delimiter: Character between the fields of a CSV file. Default: `None`, which detects it.
            decimal: Decimal mark of numbers in text. Default: `None`, the one of the study, or of `data` if its numbers
                cannot be read otherwise.
            text_encoding: Text encoding of a CSV file. Default: `None`, which detects it.
            sheet: Sheet of an Excel file: its name, or its number, from 1. Default: `None`, as in the study.
            skip_rows: Number of lines above the column names of a CSV or Excel file. Default: `None`, as in the study.
            comment: Character that starts a comment in a CSV file. Default: `None`, as in the study.

        Returns:
            One row per row of `data`: the target in its own units; or its mean, times the exposure if the study has
            one (counts, gamma and tweedie); or one column per quantile; or the class and the probability of each class.

        Raises:
            DataError: If a column is missing, or holds values of another kind than in the study.
        """
        options = FileOptions(delimiter, text_encoding, sheet, skip_rows, comment)
        if isinstance(data, str | os.PathLike):
            settings = self.description["settings"]
            recorded = FileOptions(**{option: settings.get(option) for option in RECORDED_OPTIONS})
            name, _, frame = load(data, options, recorded)
        else:
            name, frame = "The table of new rows", take_frame(data, options)
        return predict_rows(self.description, self.model, self.encoder, frame, name, decimal=decimal)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Save the study as a folder: report, description, table of all strengths, network and encoder.

        The code in the report loads the folder in which the study was saved first.

        Args:
            folder: The folder to write; its parents are created. It is written completely or not at all.
            overwrite: Whether to replace a study that is saved there. Default: `False`.

        Returns:
            The path of the report.

        Raises:
            FileExistsError: If the folder exists and is not replaced.
            OSError: If the folder cannot be written.
        """
        from poise.study.storage import copy_study, write_study  # the report needs Plotly, predictions do not

        if self._findings is not None:
            return write_study(self._findings, folder, overwrite=overwrite)
        assert self.folder is not None
        return copy_study(self.folder, folder, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, safe_mode: bool = True) -> "Study":
        """Load a study that `Study.save` wrote.

        Args:
            folder: Its folder.
            safe_mode: Whether to refuse Python code in the network (a `Lambda` layer); use `False` only if you trust
                the source. Default: `True`.

        Returns:
            The study, ready to predict. It has no `findings`.

        Raises:
            DataError: If there is no study, or it is damaged, of another version, or cannot be rebuilt here.
        """
        description, model, encoder = read_study(folder, safe_mode=safe_mode)
        return cls(description, model, encoder, folder=Path(folder))

    # ------------------------------------------------------------ display

    def __repr__(self) -> str:
        data = self.description["data"]
        saved = self.results.loc[self.description["saved"]].to_dict()
        score = f"{saved['score_name']} {format_number(saved['score'], 2)} on the test rows"
        strength = f"{quantity_of(self.description['saved'])} {format_number(saved['strength'], 2)}"
        network = f"{saved['title']} at {strength}: {score}"
        inferred = ", inferred; set task to change it" if data.get("task_reason") else ""
        task = f"{data['task']} of {quote_names(data['targets'])}{inferred}"
        return f"Study of {data['name']!r} ({task})\n{self.headline}\n{network}"

    def _repr_html_(self) -> str:
        data = self.description["data"]
        headings, rows = compare_candidates(self.description)
        head = "".join(f'<th style="{STYLE};text-align:left">{escape(heading)}</th>' for heading in headings)
        body = "".join(
            "<tr>" + "".join(f'<td style="{STYLE};text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>"
            for row in rows
        )
        return (
            f"<div><p><b>Study of {escape(data['name'])}</b> ({escape(data['task'])} of {escape(data['target'])}, "
            f"{self.description['rows']['test']:,} test rows)<br>{escape(self.headline)}</p>"
            f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
