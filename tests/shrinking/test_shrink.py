"""poise.shrink from a trained model to a smaller one."""

import re
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from sklearn.datasets import load_digits

import poise
from poise.shrinking.report import render_report

QUICK = {"epochs_per_stage": 2, "fine_tuning_epochs": 2, "batch_size": 64}


class Batches(keras.utils.PyDataset):
    """Four batches of 32 rows."""

    def __init__(self, x, y) -> None:
        super().__init__()
        self._data = (x, y)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        return keras.tree.map_structure(lambda leaf: leaf[32 * index : 32 * (index + 1)], self._data)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = map(np.asarray, load_digits(return_X_y=True))
    x = (x / 16).astype("float32")
    return x[:1300], y[:1300], x[1300:], y[1300:]


@pytest.fixture(scope="module")
def classifier(digits) -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(64, activation="relu", name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, name="head")], name="digits")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    model.fit(digits[0], digits[1], epochs=15, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def result(classifier, digits) -> poise.ShrinkResult:
    keras.utils.set_random_seed(0)
    return poise.shrink(classifier, *digits[:2], flops=0.4, validation_data=digits[2:], **QUICK)


def test_the_budget_is_met_with_nearly_the_same_accuracy(result, classifier, digits) -> None:
    ratios = poise.compare_models(classifier, result.model)["ratio"].astype(float)
    assert 2.5 <= ratios["FLOPs per sample"] < 4
    before = classifier.evaluate(*digits[2:], verbose=0, return_dict=True)["accuracy"]
    after = result.model.evaluate(*digits[2:], verbose=0, return_dict=True)["accuracy"]
    assert after > before - 0.02
    assert result.chosen["accuracy"] == pytest.approx(after)
    assert result.original["accuracy"] == pytest.approx(before)


def test_the_tables_describe_the_networks(result, classifier) -> None:
    pd.testing.assert_frame_equal(
        result.sizes.drop("file size"), poise.compare_models(classifier, result.model).drop("file size")
    )
    widths = [layer.units for layer in result.model.layers]
    assert all(width % 8 == 0 for width in widths[:2])
    assert result.layers.to_dict("list") == {
        "layer": ["first", "second", "head"], "before": [64, 64, 10], "after": widths,
        "why": ["", "", "an output of the model"],
    }  # fmt: skip
    stages = result.stages
    assert stages["stage"].tolist() == ["original", "stage 1", "stage 2", "fine-tuned"]
    assert stages["epochs"].tolist() == [0, 2, 4, 6]
    assert stages["chosen"].tolist() == [False] * 3 + [True]
    assert stages["FLOPs"].is_monotonic_decreasing
    assert stages["parameters"].iloc[[0, -1]].tolist() == [classifier.count_params(), result.model.count_params()]
    assert (result.latency[["before", "after", "ratio"]] > 0).all(axis=None)
    assert result.latency.index.tolist() == [1, 256]
    assert result.budget == "at most 0.4 of the FLOPs"


def test_a_result_shows_itself(result) -> None:
    assert repr(result).startswith(result.headline)
    assert "fine-tuned *" in repr(result)
    assert result.headline in result._repr_html_()
    figure: Any = result.plot()
    assert list(figure.data[0].x) == result.stages["FLOPs"].tolist()
    page = render_report(result, "digits & <co>")
    assert "digits &amp; &lt;co&gt;: a smaller network" in page
    assert result.headline in page


def test_the_original_model_stays_as_it_was(classifier, digits) -> None:
    weights, optimizer = classifier.get_weights(), classifier.optimizer
    poise.shrink(classifier, *digits[:2], parameters=0.7, **{**QUICK, "fine_tuning_epochs": 0})
    assert classifier.optimizer is optimizer
    for weight, before in zip(classifier.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_the_smaller_model_needs_no_poise(result, digits, tmp_path) -> None:
    result.model.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.Adam)
    np.testing.assert_allclose(
        loaded.predict(digits[2], verbose=0), result.model.predict(digits[2], verbose=0), rtol=1e-5, atol=1e-5
    )
    assert "poise" not in (tmp_path / "small.keras").read_bytes().decode("latin-1")


def test_a_stage_meets_its_target_where_no_estimate_of_the_cost_does(classifier, digits, monkeypatch) -> None:
    monkeypatch.setattr(poise.shrinking.procedure, "ATTEMPTS", 0)
    result = poise.shrink(classifier, *digits[:2], flops=0.4, validation_data=digits[2:], **QUICK)
    assert float(poise.compare_models(classifier, result.model)["ratio"].loc["FLOPs per sample"]) >= 2.5
    assert result.model.get_layer("first").units == result.model.get_layer("second").units == 8


def test_the_smallest_network_within_an_accuracy_drop(classifier, digits) -> None:
    result = poise.shrink(classifier, *digits[:2], max_accuracy_drop=0.02, validation_data=digits[2:], **QUICK)
    assert result.chosen["accuracy"] >= result.original["accuracy"] - 0.02 - 1e-6
    assert result.chosen["FLOPs"] < 0.6 * result.original["FLOPs"]
    within = result.stages[result.stages["accuracy"] >= result.original["accuracy"] - 0.02 - 1e-6]
    assert result.chosen["FLOPs"] == within["FLOPs"].min()
    scores = result.model.evaluate(*digits[2:], verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(result.chosen["accuracy"])


def test_an_impossible_accuracy_returns_the_original_network(classifier, digits) -> None:
    x = digits[2]
    result = poise.shrink(
        classifier,
        *digits[:2],
        max_loss_increase=0.0,
        validation_data=(x, classifier.predict(x, verbose=0).argmax(axis=1)),
        epochs_per_stage=1,
        fine_tuning_epochs=0,
        learning_rate=0.5,
    )
    assert result.chosen["stage"] == "original"
    assert result.headline == "No smaller network meets the budget: validation loss at most 0% higher."
    assert result.model.count_params() == classifier.count_params()


@pytest.mark.backends("jax", "tensorflow", "torch")
def test_datasets_several_inputs_and_regression() -> None:
    x = {"a": np.random.default_rng(0).normal(size=(128, 4)), "b": np.random.default_rng(1).normal(size=(128, 3))}
    x = {name: array.astype("float32") for name, array in x.items()}
    y = x["a"][:, :1] * x["b"][:, :1]
    inputs = {name: keras.Input(array.shape[1:], name=name) for name, array in x.items()}
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()([*inputs.values()]))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.1)(hidden)))
    model.compile("rmsprop", "mse")

    result = poise.shrink(
        model, Batches(x, y), parameters=0.6, validation_data=(x, y), epochs_per_stage=2, fine_tuning_epochs=1
    )

    assert result.model.count_params() <= 0.6 * model.count_params()
    assert result.accuracy == "loss"
    assert isinstance(result.model.optimizer, keras.optimizers.RMSprop)
    assert result.model.predict(x, verbose=0).shape == (128, 1)


@pytest.mark.parametrize(
    ("name", "constraint"), [("AdamW", None), ("Lion", None), ("Adam", "max_norm")], ids=["AdamW", "Lion", "constraint"]
)
def test_what_a_proximal_update_refuses_can_be_shrunk_too(name, constraint) -> None:
    x = np.random.default_rng(0).normal(size=(128, 6)).astype("float32")
    hidden = layers.Dense(32, activation="relu", kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(1)])
    steps = 1 if keras.backend.backend() == "torch" else 3  # Keras requires 1 on PyTorch
    model.compile(getattr(keras.optimizers, name)(0.003), "mse", steps_per_execution=steps)
    result = poise.shrink(model, x, x[:, :1], parameters=0.6, epochs_per_stage=2, fine_tuning_epochs=0)
    assert result.model.layers[0].units == 16
    assert type(result.model.optimizer).__name__ == name
    assert result.model.optimizer.weight_decay == model.optimizer.weight_decay
    assert result.model.steps_per_execution == steps
    assert type(result.model.layers[0].kernel.constraint) is type(model.layers[0].kernel.constraint)


@pytest.mark.backends("jax", "tensorflow", "torch")
def test_a_network_of_unknown_length_has_an_embedding_and_no_flops() -> None:
    tokens = np.random.default_rng(0).integers(0, 9, size=(96, 5))
    y = (tokens == 3).any(axis=1).astype("float32")
    inputs = keras.Input((None,), dtype="int32")
    x = layers.GlobalMaxPooling1D()(layers.Dense(24, activation="relu")(layers.Embedding(9, 16)(inputs)))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(tokens, y, epochs=5, verbose=0)
    data = {"validation_data": (tokens, y), "epochs_per_stage": 2, "fine_tuning_epochs": 1}

    result = poise.shrink(model, tokens, y, max_accuracy_drop=0.5, **data)

    assert result.size == "parameters"
    assert result.model.count_params() < 0.6 * model.count_params()
    figure: Any = result.plot()
    assert figure.data[0].x[0] == model.count_params()
    assert result.headline.startswith("The smaller network has ")
    page = render_report(result, "embedding")
    assert "unknown</td>" in page
    assert not re.search(r">[^<]*\bnan\b[^<]*</(td|dd|p|div|span|strong)>", page)
    with pytest.raises(ValueError, match="The FLOPs of the model are not known"):
        poise.shrink(model, tokens, y, flops=0.5, **data)


def test_widths_stay_multiples_over_several_stages() -> None:
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    hidden = [layers.Dense(units, activation="relu") for units in (40, 44, 64)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(1)])
    model.compile("adam", "mse")
    result = poise.shrink(model, x, x[:, :1], flops=0.2, epochs_per_stage=2, fine_tuning_epochs=0)
    assert len(result.stages) > 3
    for layer, whole in zip(result.model.layers, (40, 44, 64), strict=False):
        assert layer.units == whole or layer.units % 8 == 0
    assert result.chosen["FLOPs"] <= 0.2 * result.original["FLOPs"]


def test_weights_of_rows_count(digits) -> None:
    """Rows of weight zero change nothing: their targets may be anything."""
    x, y = digits[0][:200], (digits[1][:200] > 4).astype("float32")
    outcomes = []
    for noise in (0.0, 100.0):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((64,)), layers.Dense(16, activation="relu"), layers.Dense(1)])
        model.compile("adam", "mse", weighted_metrics=["mae"])
        weight = np.arange(200) < 150
        data = (np.where(weight, y, noise), weight.astype("float32"))
        result = poise.shrink(
            model,
            x,
            data[0],
            sample_weight=data[1],
            validation_data=(x, *data),
            parameters=0.6,
            epochs_per_stage=2,
            fine_tuning_epochs=1,
            batch_size=200,
        )
        outcomes.append(result.stages[["loss", "mae"]].to_numpy(float))
    np.testing.assert_allclose(*outcomes, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Pass one of flops, parameters, max_accuracy_drop, max_loss_increase, such as flops=0.25, got none."),
        ({"flops": 0.5, "parameters": 0.5}, "got flops and parameters."),
        ({"flops": 1.5}, "flops must be between 0 and 1 (exclusive), got 1.5. Pass a share such as 0.25."),
        ({"max_accuracy_drop": -1}, "max_accuracy_drop must be a finite number >= 0, such as 0.005, got -1.0."),
        ({"flops": 0.5, "multiple": 0}, "multiple must be an int >= 1, got 0."),
        ({"flops": 0.5, "batch_size": 0}, "batch_size must be an int >= 1, got 0."),
        ({"flops": 0.5, "epochs_per_stage": -1}, "epochs_per_stage must be an int >= 0, got -1."),
        ({"flops": 0.5, "learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0."),
        ({"flops": 0.5, "y": None}, "y is None. Pass the targets of the rows in x."),
        ({"flops": 0.5, "y": np.zeros(3)}, "x, y and sample_weight must have the same number of rows, got [3, 40]."),
        ({"flops": 0.01}, "flops=0.01 cannot be reached: 0.12 of the FLOPs remain if every layer keeps its smallest width with multiple=8. Pass a larger share or a smaller multiple."),
        ({"max_accuracy_drop": 0.1}, "max_accuracy_drop needs an accuracy, and the model has only loss."),
    ],
    ids=["none", "two", "share", "drop", "multiple", "batch", "epochs", "rate", "no-y", "rows", "unreachable", "accuracy"],
)  # fmt: skip
def test_bad_arguments_have_one_clear_error(arguments, message) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    settings = {"y": np.zeros((40, 1)), **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        poise.shrink(model, np.zeros((40, 4)), settings.pop("y"), **settings)


def test_bad_models_and_datasets_have_one_clear_error() -> None:
    x, y = np.zeros((40, 4)), np.zeros((40, 1))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(64), layers.Dense(1)], name="net")
    with pytest.raises(ValueError, match="The model 'net' is not compiled with a loss"):
        poise.shrink(model, x, y, flops=0.5)
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="validation_data is needed if x is a dataset"):
        poise.shrink(model, Batches(x, y), flops=0.5)
    with pytest.raises(TypeError, match="can be iterated more than once, got generator"):
        poise.shrink(model, (pair for pair in [(x, y)]), validation_data=(x, y), flops=0.5)
    with pytest.raises(TypeError, match="epochs_per_stage must be an int >= 0, got 1.5"):
        poise.shrink(model, x, y, flops=0.5, epochs_per_stage=1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="learning_rate must be a finite number > 0, got '0.1'"):
        poise.shrink(model, x, y, flops=0.5, learning_rate="0.1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="flops must be a number, got 'small'"):
        poise.shrink(model, x, y, flops="small")  # type: ignore[arg-type]
    single = keras.Sequential([keras.Input((4,)), layers.Dense(1)], name="single")
    single.compile("adam", "mse")
    with pytest.raises(ValueError, match="No unit of the model 'single' can be removed"):
        poise.shrink(single, x, y, flops=0.5)
