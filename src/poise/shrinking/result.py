"""The outcome of `poise.shrink`."""

import html
import math
from dataclasses import dataclass

import keras
import pandas as pd
import plotly.graph_objects as go

from poise.path.plots import INK, PAPER, PENALTY, PREDICTION, RULE, PathFigure


@dataclass(frozen=True, eq=False, repr=False)
class ShrinkResult:
    """A smaller network, and how it compares with the original one.

    Attributes:
        model: The smaller `keras.Model`, compiled like the original one. It does not depend on poise.
        stages: One row per network: the original one, one after each stage, and one after each fine-tuning. Columns:
            `stage`, `FLOPs`, `parameters`, `epochs` (trained so far), `loss` and the metrics on the validation rows,
            and `chosen` (whether it is `model`).
        sizes: The table of `poise.compare_models` for both networks.
        layers: One row per layer that makes units. Columns: `layer`, `before`, `after` (number of units), and `why`
            (why its units cannot be removed; empty if they can).
        latency: Milliseconds per batch of 1 and of 256 rows for both networks, measured with `predict_on_batch` on this
            machine. Columns: `before`, `after` and `ratio`.
        budget: The budget in words.
        accuracy: Name of the metric that the plot and the headline show.
    """

    model: keras.Model
    stages: pd.DataFrame
    sizes: pd.DataFrame
    layers: pd.DataFrame
    latency: pd.DataFrame
    budget: str
    accuracy: str

    @property
    def original(self) -> pd.Series:
        """The row of the original network."""
        return self.stages.iloc[0]

    @property
    def chosen(self) -> pd.Series:
        """The row of the smaller network."""
        return self.stages[self.stages["chosen"]].iloc[0]

    @property
    def size(self) -> str:
        """The column by which networks are plotted: "FLOPs", or "parameters" where FLOPs are not known."""
        return "FLOPs" if self.stages["FLOPs"].notna().all() else "parameters"

    @property
    def headline(self) -> str:
        """The outcome in two sentences."""
        if self.chosen["stage"] == self.original["stage"]:
            return f"No smaller network meets the budget: {self.budget}."
        flops, parameters = self.sizes["ratio"].loc[["FLOPs per sample", "parameters"]].astype(float)
        fewer = f"{flops:.1f} times fewer FLOPs and " if math.isfinite(flops) else ""
        return (
            f"The smaller network has {fewer}{parameters:.1f} times fewer parameters. "
            f"Its validation {self.accuracy} is {self.chosen[self.accuracy]:.3g}, that of the original network "
            f"{self.original[self.accuracy]:.3g}."
        )

    def plot(self) -> go.Figure:
        """Return a Plotly figure of the accuracy (or loss) of all networks against their FLOPs (or parameters)."""
        chosen, size = self.stages["chosen"], self.size
        figure = PathFigure()
        figure.add_scatter(
            x=self.stages[size],
            y=self.stages[self.accuracy],
            mode="lines+markers",
            marker={"color": [PENALTY if each else PREDICTION for each in chosen], "size": 10},
            line={"color": RULE},
            text=self.stages["stage"],
            hovertemplate=f"%{{text}}<br>%{{x:,}} {size}<br>{html.escape(self.accuracy)} %{{y:.4g}}<extra></extra>",
        )
        place = math.log10(self.chosen[size])
        figure.add_annotation(x=place, y=self.chosen[self.accuracy], text="chosen", ay=30, ax=0)
        figure.update_layout(
            template="none",
            paper_bgcolor=PAPER,
            plot_bgcolor=PAPER,
            font={"color": INK},
            xaxis={"title": "FLOPs per sample" if size == "FLOPs" else size, "type": "log", "gridcolor": RULE},
            yaxis={"title": f"validation {html.escape(self.accuracy)}", "gridcolor": RULE},
            showlegend=False,
        )
        return figure

    def __repr__(self) -> str:
        return "\n\n".join([self.headline, *(table.to_string(**options) for table, options in self._tables())])

    def _repr_html_(self) -> str:
        tables = (table.to_html(escape=True, border=0, **options) for table, options in self._tables())
        return f"<p>{html.escape(self.headline)}</p>" + "".join(tables)

    def _tables(self) -> list[tuple[pd.DataFrame, dict]]:
        stages = self.stages.drop(columns="chosen")
        for column in ("FLOPs", "parameters"):
            stages[column] = stages[column].map("{:,.0f}".format)
        stages["stage"] = [f"{name} *" if is_chosen else name for name, is_chosen in
                           zip(stages["stage"], self.stages["chosen"], strict=True)]  # fmt: skip
        latency = self.latency.rename_axis("ms per batch of").round(3).reset_index()
        precise = {"index": False, "float_format": "{:.4g}".format}
        return [(stages, precise), (self.layers, {"index": False}), (latency, precise)]
