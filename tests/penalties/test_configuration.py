"""A penalty is restored from its configuration, and its attributes and repr say what it is."""

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
def test_capabilities_schedule_and_repr(case: Case) -> None:
    penalty = case.make(0.375)
    assert (penalty.metric, penalty.smooth) == (case.metric, case.smooth)
    assert type(penalty).__name__ in repr(penalty)
    if penalty.strength_argument is None:
        assert penalty.is_constraint
        return
    assert "0.375" in repr(penalty)

    scheduled = case.make(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9))
    restored = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(scheduled)))
    )

    schedule = restored.penalty.strength if isinstance(restored, poise.Anchored) else restored.strength
    assert isinstance(schedule, keras.optimizers.schedules.ExponentialDecay)
    assert schedule.get_config()["initial_learning_rate"] == 0.5
