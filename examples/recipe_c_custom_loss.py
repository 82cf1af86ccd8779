"""Recipe (c): a loss function that adds the L1 norm of both kernels, written with tf.keras and with poise."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tensorflow as tf
from comparing import STEPS, diabetes, print_weights

import poise

x, y = diabetes()


def network():
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential(
        [
            tf.keras.Input((10,)),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(1),
        ]
    )


# With tf.keras.
theirs = network()


def loss_with_l1(y_true, y_pred):
    first, second = theirs.trainable_variables[0], theirs.trainable_variables[2]
    penalty = tf.reduce_sum(tf.abs(first)) + tf.reduce_sum(tf.abs(second))
    return tf.reduce_mean(tf.square(y_true - y_pred)) + 0.001 * penalty


theirs.compile(optimizer="adam", loss=loss_with_l1, metrics=["mse"])
theirs.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0)

# With poise: the loss is only the prediction loss, and a bare penalty acts on all kernels.
ours = network()
ours.compile(optimizer=poise.PenalizedOptimizer("adam", poise.L1(0.001), update="coupled"), loss="mse")
ours.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0)

print_weights(theirs, ours)
total, error = theirs.evaluate(x, y, verbose=0)
print(f"theirs: evaluate says loss {total:.3f}, and the mean squared error is {error:.3f}")
print(f"ours:   evaluate says loss {ours.evaluate(x, y, verbose=0):.3f}")

deeper = tf.keras.Sequential([tf.keras.Input((10,)), tf.keras.layers.LayerNormalization(), *network().layers])
names = [variable.path.split("/")[-1] for variable in deeper.trainable_variables]
zeros = sum(int((w == 0).sum()) for w in theirs.get_weights()[::2])
print(f"hidden: with a normalization in front, variables 0 and 2 are {names[0]!r} and {names[2]!r}: another penalty")
print(f"hidden: after {STEPS} steps of L1 inside the loss, {zeros} of 704 weights are exactly zero")

sparse = network()
sparse.compile(optimizer=poise.PenalizedOptimizer("adam", poise.L1(0.001)), loss="mse")
sparse.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0)
zeros = sum(int((w == 0).sum()) for w in sparse.get_weights()[::2])
print(f"poise, update='auto': {zeros} of 704 are exactly zero")
