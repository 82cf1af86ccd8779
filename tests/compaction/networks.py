"""Two small networks that several files of tests begin with."""

import keras
from keras import layers

from .zeroing import constant, randomized, silent

UNITS = 6


def dense_net(*names: str, inputs: int = 5, activation: str = "tanh") -> keras.Model:
    """Dense layers of UNITS units with these names, and `last` with 3."""
    hidden = [layers.Dense(UNITS, activation=activation, name=name) for name in names]
    return randomized(keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(3, name="last")], name="net"))


def conv_net() -> keras.Model:
    """Two convolutions, each with six filters of which two are dead."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(UNITS, 3, padding="same", name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(UNITS, 3, activation="relu", name="second")(layers.MaxPooling2D()(x))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(x)), name="net"))
    silent(model.get_layer("norm"), (1, 4))
    constant(model.get_layer("second"), (0, 2))
    return model
