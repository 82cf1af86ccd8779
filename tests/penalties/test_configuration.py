"""A penalty comes back from its configuration, and its repr names it."""

import json

import keras
import numpy as np
import pytest
from oracles.compare import array, sample, tensor
from oracles.penalties import CASES, MATRIX, Case

import poise

every_case = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])


@every_case
def test_configuration_survives_json(case: Case) -> None:
    penalty = case.make(0.375)
    written = json.dumps(keras.saving.serialize_keras_object(penalty))

    restored = keras.saving.deserialize_keras_object(json.loads(written))

    assert type(restored) is type(penalty)
    assert restored.strength == penalty.strength
    assert json.dumps(keras.saving.serialize_keras_object(restored)) == written
    w = sample(MATRIX, 17)
    np.testing.assert_array_equal(array(restored.value(tensor(w), 0.375)), array(penalty.value(tensor(w), 0.375)))


@every_case
def test_scheduled_strength_survives_json(case: Case) -> None:
    penalty = case.make(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9))
    written = json.dumps(keras.saving.serialize_keras_object(penalty))

    restored = keras.saving.deserialize_keras_object(json.loads(written))

    scheduled = restored.penalty.strength if isinstance(restored, poise.Anchored) else restored.strength
    assert isinstance(scheduled, keras.optimizers.schedules.ExponentialDecay)
    assert scheduled.get_config()["initial_learning_rate"] == 0.5


@every_case
def test_repr_names_the_class_and_the_strength(case: Case) -> None:
    text = repr(case.make(0.375))
    assert type(case.make(0.375)).__name__ in text
    assert "0.375" in text
