"""Recipe (b): an L2 regularizer on both layers, written with tf.keras and with poise."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tensorflow as tf
from comparing import STEPS, diabetes, print_weights

import poise

x, y = diabetes()


def network(regularizer=None):
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential(
        [
            tf.keras.Input((10,)),
            tf.keras.layers.Dense(64, activation="relu", kernel_regularizer=regularizer),
            tf.keras.layers.Dense(1, kernel_regularizer=regularizer),
        ]
    )


# With tf.keras.
theirs = network(tf.keras.regularizers.l2(0.01))
theirs.compile(optimizer="adam", loss="mse", metrics=["mse"])
theirs.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0)

# With poise: the layers do not change.
ours = network()
ours.compile(optimizer=poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
ours.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0)

print_weights(theirs, ours)
total, error = theirs.evaluate(x, y, verbose=0)
print(f"theirs: evaluate says loss {total:.3f}, and the mean squared error is {error:.3f}")
print(f"ours:   evaluate says loss {ours.evaluate(x, y, verbose=0):.3f}")
print(f"hidden: {total - error:.3f} of their loss, and of their val_loss, is the price of the weights")
