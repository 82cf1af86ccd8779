"""The picture of a path: what is drawn where, what is left out, and that names stay text."""

import json
from typing import Any

import IPython.display
import numpy as np
import plotly.io
import pytest

import poise
from poise.path.plots import NAMED, UNNAMED, axis_positions, plain_label

from .by_hand import path_of

HOSTILE = ["<b>age</b>", "<script>alert(1)</script>", "a & b", "$x^2$ %{y}"]


def traces(picture, legend) -> dict[str, Any]:
    """By name the traces of a panel, of which each has a legend of its own."""
    return {
        trace.name: trace for trace in picture.data if trace.legend == ("legend" if legend == 1 else f"legend{legend}")
    }


def all_traces(picture) -> list[Any]:
    return list(picture.data)


def json_of(picture) -> str:
    return picture.to_json()


def marks(picture) -> Any:
    return [note.text for note in picture.layout.annotations if "<b>" in note.text]


def test_losses_and_their_band_are_those_of_the_table() -> None:
    path = path_of(cv=4)
    losses = traces(path.plot(), 1)
    table = path.table

    np.testing.assert_array_equal(losses["validation"].y, table["val_loss"])
    np.testing.assert_array_equal(losses["training"].y, table["loss"])
    np.testing.assert_array_equal(losses["validation"].x, table["strength"])
    band = losses["± 1 standard error"]
    np.testing.assert_allclose(band.y[:3], table["val_loss"] + table["val_se"])
    np.testing.assert_allclose(band.y[3:], (table["val_loss"] - table["val_se"])[::-1])


def test_best_and_one_se_are_marked_through_all_panels() -> None:
    held = np.array([[3.0, 1.0, 1.1, 4.0], [3.0, 1.4, 1.5, 4.0]])[:, None]
    picture = path_of(held, strengths=(0.01, 0.1, 1.0, 10.0), cv=2).plot()

    assert marks(picture) == ["<b>best</b> 0.1", "<b>one_se</b> 1"]
    assert [shape.x0 for shape in picture.layout.shapes] == [0.1] * 3 + [1.0] * 3
    assert [note.x for note in picture.layout.annotations if "<b>" in note.text] == [-1.0, 0.0]


def test_one_strength_may_carry_both_marks_and_a_single_fold_has_one() -> None:
    held = [[[3.0, 1.0, 2.0]], [[3.0, 1.1, 2.0]]]
    assert marks(path_of(held, cv=2).plot()) == ["<b>best = one_se</b> 0.1"]
    single = path_of(held[:1], cv=1, given_rows=True).plot()
    assert marks(single) == ["<b>best</b> 0.1"]
    assert "± 1 standard error" not in traces(single, 1)


def test_a_strength_of_zero_is_left_of_the_others() -> None:
    picture = path_of(strengths=(0.0, 0.1, 1.0, 10.0)).plot()

    at = traces(picture, 1)["validation"].x
    np.testing.assert_allclose(np.diff(np.log10(at)), [2.0, 1.0, 1.0])
    axis = picture.layout.xaxis
    assert axis.type == "log"
    assert dict(zip(axis.tickvals, axis.ticktext, strict=True))[at[0]] == "0"
    assert axis.range[0] < np.log10(at[0])
    np.testing.assert_array_equal(traces(picture, 1)["validation"].customdata, [0.0, 0.1, 1.0, 10.0])


@pytest.mark.parametrize("strengths", [[0.0], [0.3], [0.0, 0.3], [1e-12, 1e9], [0.3, 0.31, 0.32]])
def test_any_grid_has_ascending_places_and_ticks(strengths) -> None:
    at = axis_positions(np.array(strengths))
    picture = path_of(strengths=strengths, cv=2, inputs=6).plot()

    assert (np.diff(at) > 0).all()
    low, high = picture.layout.xaxis.range
    assert low < np.log10(at[0]) <= np.log10(at[-1]) < high
    assert 1 <= len(picture.layout.xaxis.tickvals) <= 10


def test_strengths_at_which_lanes_diverged_leave_gaps_and_crosses() -> None:
    strengths = (0.001, 0.01, 0.1, 1.0, 10.0)
    path = path_of(strengths=strengths, inputs=5, diverged=[(0, 0, 1), (1, 0, 1), (-1, 0, 3)])
    for array in path.lanes.sizes.values():
        array[-1, 3] = np.nan
    picture = path.plot()

    losses = traces(picture, 1)
    assert np.isnan(losses["validation"].y).tolist() == [False, True, False, False, False]
    np.testing.assert_array_equal(losses["diverged"].customdata, [[0.01, 2], [1.0, 1]])
    bands = [trace for trace in all_traces(picture) if trace.name == "± 1 standard error"]
    assert [len(band.x) for band in bands] == [2, 6]
    assert [band.showlegend for band in bands] == [True, False]
    assert all(np.isnan(trace.y[3]) for trace in traces(picture, 2).values())


def test_a_path_of_lanes_that_all_diverged_is_drawn() -> None:
    picture = path_of(diverged=[(0, 0, at) for at in range(3)]).plot()

    assert marks(picture) == []
    assert len(traces(picture, 1)["diverged"].x) == 3


def test_losses_of_many_sizes_are_drawn_on_a_logarithmic_axis() -> None:
    small, large = ([[[1.0, 2.0, 3.0]]], [[[1e9, 2.0, 0.5]]])
    few, many = (path_of(held, cv=1, given_rows=True).plot().layout.yaxis for held in (small, large))

    assert few.type != "log"
    assert many.type == "log"
    assert many.range[1] > 9


def test_only_groups_are_drawn_where_a_penalty_has_groups() -> None:
    path = path_of(names=HOSTILE, strengths=(0.01, 0.1, 1.0))
    drawn = traces(path.plot(), 2)

    # In the order of their sizes, largest first.
    sizes = path.lanes.sizes["net/first/kernel"][-1]
    order = np.argsort(-sizes.max(axis=0))
    assert list(drawn) == [plain_label(HOSTILE[number]) for number in order]
    for number in order:
        np.testing.assert_array_equal(drawn[plain_label(HOSTILE[number])].y, sizes[:, number])


def test_single_weights_are_drawn_where_no_penalty_has_groups() -> None:
    path = path_of(rules=(poise.Rule(poise.Role.KERNELS, poise.L1()),), names="abcd")
    kernel = path.lanes.weights[0][:, None].repeat(4, axis=0)[:, 0]
    path.lanes.sizes["net/first/kernel"] = np.abs(kernel)
    drawn = traces(path.plot(), 2)

    assert len(drawn) == 4 * 3 + 3
    np.testing.assert_array_equal(drawn["b → 2"].y, np.abs(kernel[-1, :, 1, 2]))
    np.testing.assert_array_equal(drawn["head/kernel 1, 0"].y, path.lanes.sizes["net/head/kernel"][-1, :, 1, 0])


def test_groups_that_may_be_units_are_not_called_inputs() -> None:
    path = path_of(inputs=3, names="abc")  # the first kernel is 3 × 3
    assert sorted(traces(path.plot(), 2)) == ["first/kernel 0", "first/kernel 1", "first/kernel 2"]


def test_ten_thousand_inputs_stay_light() -> None:
    path = path_of(inputs=10_000, strengths=np.geomspace(1e-4, 1.0, 100), cv=2)
    picture = path.plot()
    drawn = traces(picture, 2)

    (gray,) = [trace for name, trace in drawn.items() if "more" in name]
    assert gray.name == f"{UNNAMED} of 9,980 more"
    assert len(drawn) == NAMED + 1
    assert len(gray.y) == UNNAMED * 101
    assert np.isnan(gray.y[100::101]).all()  # gaps between them
    assert np.isfinite(np.delete(gray.y, np.s_[100::101])).all()
    assert len(json_of(picture)) < 600_000
    sizes = path.lanes.sizes["net/first/kernel"][-1].max(axis=0)
    assert min(max(drawn[name].y) for name in drawn if name != gray.name) >= np.sort(sizes)[-NAMED]


def test_what_survives_is_a_share_of_all_there_is() -> None:
    path = path_of()
    shares = traces(path.plot(), 3)
    table = path.table

    assert list(shares) == ["inputs, of 4", "units, of 4", "weights, of 15"]
    np.testing.assert_allclose(shares["inputs, of 4"].y, [1.0, 0.75, 0.5])
    np.testing.assert_allclose(shares["weights, of 15"].y, 1.0 - table["zeros"] / 15)
    np.testing.assert_array_equal(shares["units, of 4"].customdata[:, 1], table["units"])
    assert list(traces(path_of(knows_features=False).plot(), 3)) == ["units, of 4", "weights, of 15"]


def test_without_sizes_there_are_two_panels() -> None:
    path = path_of()
    path.lanes.sizes.clear()
    picture = path.plot()

    assert "yaxis3" not in picture.layout.to_plotly_json()
    assert list(traces(picture, 2)) == ["inputs, of 4"]


def test_names_are_drawn_as_text() -> None:
    rule = poise.Rule("first/kernel", poise.GroupLasso(groups="inputs"), name="<i>rule</i>")
    picture = json.loads(json_of(path_of(names=HOSTILE, rules=(rule,)).plot()))

    texts = [trace["name"] for trace in picture["data"]] + [picture["layout"]["xaxis3"]["title"]["text"]]
    assert not [text for text in texts if "<" in text]
    assert "&lt;b&gt;age&lt;/b&gt;" in texts
    assert "strength of GroupLasso on &lt;i&gt;rule&lt;/i&gt;" in texts


def test_long_names_keep_both_ends() -> None:
    assert plain_label("a short\nname") == "a short name"
    assert plain_label("the long name of the column 17") == "the long name of … column 17"
    assert len(plain_label("x" * 1000)) == 28


def test_the_html_export_of_a_notebook_has_the_plot(monkeypatch) -> None:
    shown: list[dict] = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, **_: shown.append(bundle))
    before = plotly.io.renderers.default
    plotly.io.renderers.default = "plotly_mimetype"  # what Plotly chooses in Jupyter
    try:
        path_of().plot()._ipython_display_()
    finally:
        plotly.io.renderers.default = before
    assert "Plotly.newPlot" in shown[-1]["text/html"]
    assert "application/vnd.plotly.v1+json" in shown[-1]
