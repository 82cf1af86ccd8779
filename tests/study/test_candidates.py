"""The penalties that a study compares, and the network that they are put on."""

import keras
import numpy as np
import pytest

from poise import PenalizedOptimizer
from poise.study.candidates.network import build_network
from poise.study.candidates.penalties import PENALTIES, get_penalty, make_rules
from poise.study.errors import DataError
from poise.study.tasks.table import make_task

OWNERS = ("a", "b", "b", "c")


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("hidden_layer_sizes", [(), (5,), (5, 4)])
def test_every_penalty_fits_every_network(name, hidden_layer_sizes) -> None:
    model = build_network(4, 3, hidden_layer_sizes, make_task("multiclass"))

    optimizer = PenalizedOptimizer("adam", make_rules(name, model, OWNERS), update="proximal")
    optimizer.build(model.trainable_variables)

    penalized = {target.path.split("/")[-1] for target in optimizer.targets}
    assert penalized == {"kernel"}
    assert len(optimizer.targets) == len(hidden_layer_sizes) + 1


def test_a_column_is_one_group_and_the_rest_has_l2() -> None:
    first, rest = make_rules("group", build_network(4, 1, (5,), make_task("regression")), OWNERS)

    assert first.penalty.groups == [[0], [1, 2], [3]]
    assert first.penalty.factors.tolist() == [1.0, 1.0, 1.0]
    assert rest.penalty.strength == pytest.approx(0.15)


def test_a_model_whose_inputs_go_elsewhere_has_no_columns() -> None:
    inputs = keras.Input((4,))
    hidden = keras.layers.Flatten()(keras.layers.Conv1D(3, 2)(keras.layers.Reshape((4, 1))(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden), name="odd")

    assert len(make_rules("l1", model, OWNERS)) == 1
    with pytest.raises(DataError, match=r"cannot determine which kernels of 'odd' read them. Use the penalty 'l2'"):
        make_rules("adaptive", model, OWNERS)


def test_an_unknown_penalty_is_refused() -> None:
    with pytest.raises(DataError, match="Unknown penalty 'ridge'. Use one of l2, l1"):
        get_penalty("ridge")


def test_a_network_starts_at_the_frequencies_of_the_classes() -> None:
    y = np.array([0, 1, 1, 2, 2, 2, 2, 2], "int32")

    odds = np.exp(make_task("multiclass").initial_bias(y, 3))

    np.testing.assert_allclose(odds / odds.sum(), [1 / 8, 2 / 8, 5 / 8])
    assert make_task("binary").initial_bias(np.array([[1.0], [0.0], [1.0], [1.0]]), 1) == pytest.approx(np.log(3.0))
    assert make_task("counts").initial_bias(np.array([[1.0], [3.0]]), 1) == pytest.approx(np.log(2.0))
    assert make_task("regression").initial_bias(np.ones((3, 1)), 1) == 0.0


def test_a_network_starts_as_if_rows_were_repeated_by_their_weights() -> None:
    y, weight = np.array([0, 1, 1, 2, 2]), np.array([3.0, 0.0, 1.0, 2.0, 2.0], "float32")
    repeated = np.repeat(y, weight.astype(int))

    np.testing.assert_allclose(
        make_task("multiclass").initial_bias(y, 3, weight), make_task("multiclass").initial_bias(repeated, 3)
    )
    for task, values, copies in (("counts", y, repeated), ("binary", y > 1, repeated > 1)):
        np.testing.assert_allclose(
            make_task(task).initial_bias(values[:, None], 1, weight), make_task(task).initial_bias(copies[:, None], 1)
        )
    alone = make_task("binary").initial_bias((y > 1)[:, None].astype("float32"), 1, (y > 1).astype("float32"))
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass", "counts"])
def test_the_loss_of_a_task_is_that_of_its_scores(task) -> None:
    random = np.random.default_rng(0)
    outputs = random.uniform(0.5, 2.0, (20, 3 if task == "multiclass" else 1)).astype("float32")
    y = random.integers(0, 3 if task == "multiclass" else 2, 20)
    y = y if task == "multiclass" else y[:, None].astype("float32")

    loss = float(keras.ops.convert_to_numpy(make_task(task).make_loss()(y, outputs)))

    assert loss == pytest.approx(make_task(task).row_losses(y, outputs).mean(), rel=1e-5)
