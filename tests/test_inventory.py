"""poise.summary: every variable, with the reason why it is or is not penalized."""

import io
from typing import Any

import keras
import pytest
from keras import layers
from oracles.models import compiled, fitted, net
from rich.console import Console

import poise


def _model(rules, **settings) -> Any:
    stack = [layers.Dense(4, name="features"), layers.BatchNormalization(name="norm"), layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((6,)), *stack], name="net")
    return compiled(poise.PenalizedOptimizer("adam", rules, **settings), model)


def _notes(model) -> Any:
    table = poise.summary(model).table
    return dict(zip(table["variable"], table["note"], strict=True))


def test_every_variable_is_listed_with_role_and_reason() -> None:
    rules = [poise.Rule("*/kernel", poise.L1(0.1), exclude="head/*", name="sparse")]

    table = poise.summary(_model(rules, update="proximal")).table

    assert table["variable"].tolist() == [
        *("net/features/kernel", "net/features/bias", "net/norm/gamma", "net/norm/beta"),
        *("net/head/kernel", "net/head/bias", "net/norm/moving_mean", "net/norm/moving_variance"),
    ]
    first = table.iloc[0]
    assert first[["shape", "role", "penalty", "update", "note"]].tolist() == [
        *((6, 4), "kernel", "L1", "proximal", "rule 'sparse'")
    ]
    assert first["strength"] == 0.1
    assert table["role"].tolist()[1:4] == ["biases", "scales", "biases"]
    notes = dict(zip(table["variable"], table["note"], strict=True))
    assert notes["net/head/kernel"] == "excluded by rule 'sparse'"
    assert notes["net/features/bias"] == "no rule selects it"
    assert notes["net/norm/moving_mean"] == "not trained"


def test_a_variable_with_two_rules_has_two_rows() -> None:
    table = poise.summary(_model([poise.L1(0.1), poise.Rule("head/kernel", poise.L2(0.2))])).table

    assert table[table["variable"] == "net/head/kernel"]["penalty"].tolist() == ["L1", "L2"]


def test_a_strength_that_was_changed_is_shown() -> None:
    model = _model(poise.L2(0.1))
    model.optimizer.strength["kernels"] = 0.7

    assert poise.summary(model).table["strength"].iloc[0] == 0.7


def test_inactive_rules_are_named() -> None:
    model = _model([poise.L2(0.1), poise.Rule("features/kernel", poise.L1(0.1), name="inactive")])
    model.get_layer("features").trainable = False

    notes = _notes(model)

    assert (
        notes["net/features/kernel"] == "frozen; rule 'kernels', 'inactive' (inactive) would apply if it were trained"
    )


def test_a_keras_regularizer_is_pointed_out() -> None:
    model = compiled("adam", net(kernel_regularizer=keras.regularizers.L2(0.1)))

    assert "poise.adopt_regularizers(model) moves it" in _notes(model)["net/features/kernel"]
    assert _notes(model)["net/features/bias"] == "there are no rules"


def test_works_without_a_compiled_model_and_refuses_one_that_is_not_built() -> None:
    assert "not compiled with poise.PenalizedOptimizer" in str(poise.summary(net()))
    with pytest.raises(ValueError, match=r"not built.*keras\.Input"):
        poise.summary(keras.Sequential([layers.Dense(1)]))


def test_a_trained_model_is_listed_as_before() -> None:
    model = _model(poise.L2(0.1))
    before = str(poise.summary(model))

    assert str(poise.summary(fitted(model, epochs=1))) == before


def test_prints_in_a_terminal_as_text_and_in_a_notebook() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, name="a<b>[bold]")], name="net")
    summary = poise.summary(compiled(poise.PenalizedOptimizer("adam", poise.L2(0.01)), model))

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary)

    for text in (str(summary), console.export_text()):
        assert "net/a<b>[bold]/kernel" in text
        assert "1 of 2 trained variables penalized, update='auto'" in text
    assert "a&lt;b&gt;[bold]" in summary._repr_html_()
    assert max(map(len, str(summary).splitlines())) <= 120


def test_its_text_is_not_displayed_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", None)
    assert "there are no rules" in str(poise.summary(compiled("sgd", net())))


def test_rules_of_a_built_optimizer_are_those_that_act() -> None:
    """Whatever its rules would match by paths today."""
    model = _model([poise.Rule("head/kernel", poise.L2(0.2))])
    model.optimizer.build(model.trainable_variables, model)
    head, features = model.get_layer("head").kernel, model.get_layer("features").kernel
    head._path, features._path = "net/other/kernel", "net/head/kernel"

    table = poise.summary(model).table.set_index("variable")

    assert table.loc["net/other/kernel", "penalty"] == "L2"
    assert table.loc["net/head/kernel", "penalty"] == ""


def test_summary_of_an_optimizer_that_the_model_is_not_compiled_with() -> None:
    model = net()
    optimizer = poise.PenalizedOptimizer("sgd", poise.Rule("head/kernel", poise.L2(0.2)))

    assert poise.summary(model, optimizer=optimizer).table["penalty"].tolist() == ["", "", "L2", ""]
    assert not optimizer.built
    with pytest.raises(TypeError, match=r"optimizer must be a poise\.PenalizedOptimizer, .*got SGD"):
        poise.summary(model, optimizer=keras.optimizers.SGD())
    with pytest.raises(TypeError, match="model must be a Keras model, got list"):
        poise.summary([])


def test_html_is_one_table_without_custom_colors() -> None:
    page = poise.summary(_model(poise.L2(0.1)))._repr_html_()

    assert page.count("<table") == page.count("</table>") == 1
    assert page.count("<tr") == 1 + 8
    assert page.count("opacity") == 6  # the rows without a penalty
    assert "color" not in page
    assert "background" not in page


@pytest.mark.parametrize("is_built", [False, True])
def test_auto_is_shown_as_the_update_that_acts(is_built) -> None:
    rules = [
        poise.Rule("features/kernel", poise.L1(0.1)),
        poise.Rule("head/kernel", poise.L2(0.1)),
        poise.Rule("*/kernel", poise.L2(0.2), name="both"),
    ]
    model = _model(rules)
    if is_built:
        fitted(model, epochs=1)

    table = poise.summary(model).table

    rows = table[table["penalty"] != ""][["variable", "penalty", "update"]].to_numpy().tolist()
    assert rows == [
        ["net/features/kernel", "L1", "proximal"],
        ["net/features/kernel", "L2", "coupled"],
        ["net/head/kernel", "L2", "coupled"],
        ["net/head/kernel", "L2", "coupled"],
    ]


def test_a_smooth_penalty_with_held_zeros_is_proximal() -> None:
    factors = [float("inf"), 1.0, 1.0, 1.0, 1.0, 1.0]
    table = poise.summary(
        _model([poise.Rule("features/kernel", poise.L2(0.1, factors=[[f] * 4 for f in factors]))])
    ).table

    assert table["update"].iloc[0] == "proximal"
