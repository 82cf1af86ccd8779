"""A path counts units and names groups by the inputs that they belong to."""

import keras
import numpy as np
from keras import layers

import poise


def test_a_path_counts_units_of_a_recurrent_layer_and_not_its_gates() -> None:
    """Three inputs and three units with four columns each: the groups are units, and no input lends them its name."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((2, 3)), layers.LSTM(3, name="lstm"), layers.Dense(1, name="head")], name="net"
    )
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), poise.L2(0.1)), loss="mse")
    rules = [poise.Rule("lstm_cell/kernel", poise.GroupLasso(1.0, groups="outputs"))]
    x, y = np.random.default_rng(0).normal(size=(20, 2, 3)), np.ones((20, 1))
    training = poise.Training(epochs=3, batch_size=None, settle=0)

    path = poise.fit_path(model, x, y, rules, strengths=[1e-3, 3.0], cv=2, training=training, progress=False)

    (name,) = path.lanes.sizes
    kernel = path.lanes.weights[0][0]
    norms = np.sqrt((kernel.reshape(2, 3, 4, 3) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(path.lanes.sizes[name][-1], norms, rtol=1e-5)
    live = (kernel.reshape(2, 3, 4, 3) != 0).any(axis=(1, 2)).sum(axis=-1)
    assert path.lanes.table["units"].tolist()[-2:] == live.tolist()
    assert live[1] < live[0] == 3
    assert path._builder.totals["units"] == 3
    assert path._builder.label(name, (0,)).endswith("kernel 0")
