"""The two forces on each layer, and whether training converged."""

from typing import Any

import plotly.graph_objects as go

from poise.study.findings import Findings, has_penalty
from poise.study.report.panels import Plot, add_line, log_axis, make_panels
from poise.study.report.sections.base import Section
from poise.study.report.sections.training import last_step

LINES = (("prediction", "prediction", "prediction", "solid"), ("penalty", "penalty", "penalty", "solid"))
MOST_LAYERS = 6
MARGIN = 1.25
ALTERNATIVE = (
    "Line charts of the gradient norms of the prediction loss and of the penalty over the training steps, on a "
    "logarithmic axis: one row of charts per layer, for the baseline and the chosen candidate."
)


class ConvergenceSection(Section):
    """The gradient norms of prediction and penalty, and the residual at the final weights."""

    name, title, link = "convergence", "Forces on each layer and convergence", "Convergence"
    is_detail = True

    def context(self, study: Findings) -> dict[str, Any]:
        layers = drawn_layers(study)
        legend = [line[1:] for line in (LINES if has_penalty(study.best) else LINES[:1])]
        return {
            "plot": Plot("forces", draw_forces(study), ALTERNATIVE, legend) if layers else None,
            "best": study.best,
            "drawn": len(layers),
            "hidden": len(study.watched[study.chosen].balance) - len(layers),
            "balances": [(study[name].title, watched.balance) for name, watched in study.watched.items()],
            "layer_name": layer_name,
        }


def drawn_layers(study: Findings) -> list[str]:
    """Return the first penalized variables, whose forces are drawn, as layer and variable.

    Networks with different encodings have these in common, except the skip connection.
    """
    variables = [
        [*study.watched[candidate.name].forces["variable"].map(_end_of).unique()]
        for candidate in study.watched_candidates
    ]
    return [variable for variable in variables[-1] if all(variable in others for others in variables)][:MOST_LAYERS]


def draw_forces(study: Findings) -> go.Figure:
    """Draw the norms of both gradients over the steps, one row of panels per layer."""
    candidates = study.watched_candidates
    variables = drawn_layers(study)
    titles = [[f"{candidate.title}, {layer_name(variable)}" for candidate in candidates] for variable in variables]
    figure = make_panels(titles, "step", "gradient norm", shared="xy", columns=len(candidates))
    ends: list[float] = []
    for column, candidate in enumerate(candidates, start=1):
        table = study.watched[candidate.name].forces
        for row, variable in enumerate(variables, start=1):
            forces = table[table["variable"].map(_end_of) == variable]
            for key, *style in LINES:
                # A logarithm has no place for zero: a force that is absent leaves a gap.
                force = forces[key].where(forces[key] > 0.0)
                if force.notna().any():
                    add_line(figure, row, column, forces["step"], force.round(9), *style)
                    ends += [float(force.min()), float(force.max())]
    ends = ends or [1.0]
    figure.update_traces(hovertemplate="%{y:.3g}").update_xaxes(range=[0, last_step(study)])
    figure.update_yaxes(log_axis(min(ends) / MARGIN, max(ends) * MARGIN))
    return figure.update_layout(hovermode="x unified")


def _end_of(variable: str) -> str:
    """Return the layer and the name of a variable, without the model."""
    return "/".join(variable.split("/")[-2:])


def layer_name(variable: str) -> str:
    """Return the layer of a variable, and the variable's own name unless it is a kernel."""
    parts = variable.split("/")
    return "/".join(part for part in parts[-2:] if part != "kernel") or variable
