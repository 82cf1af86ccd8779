"""Recipe (a): a network without any penalty, written with tf.keras and with poise."""

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
theirs.compile(optimizer="adam", loss="mse")
history = theirs.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0)

# With poise: a penalty of strength 0 changes nothing, and you can raise the strength later.
ours = network()
ours.compile(optimizer=poise.PenalizedOptimizer("adam", poise.L2(0.0)), loss="mse")
ours.fit(x, y, epochs=STEPS // 10, batch_size=32, shuffle=False, verbose=0, callbacks=[poise.PenaltyLogger()])

print_weights(theirs, ours)
ours.optimizer.strength["kernels"] = 0.01
forces = poise.forces(ours, x, y)
print(f"loss is the prediction loss: {history.history['loss'][-1]:.3f}")
print("hidden: nothing holds the weights. An L2 of 0.01 would pull on them with")
for number, ratio in enumerate(forces["ratio"], 1):
    print(f"  {ratio:.2f} times the force of the data on kernel {number}")
