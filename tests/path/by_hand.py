"""Paths whose lanes were never trained: random weights, some rows of them zero, and losses as a test wants them."""

from collections.abc import Iterable

import keras
import numpy as np
import pandas as pd

import poise
from poise.layer_state import state_of
from poise.path.result import RegularizationPath
from poise.path.training import Lanes, Training
from poise.rules.plan import resolve

HIDDEN = 3


def model_of(inputs: int) -> keras.Model:
    """Two dense layers with a normalization between them, compiled with poise."""
    layers = [keras.layers.Dense(HIDDEN, activation="relu", name="first"), keras.layers.BatchNormalization(name="norm")]
    model = keras.Sequential([keras.Input((inputs,)), *layers, keras.layers.Dense(1, name="head")], name="net")
    model.compile(poise.PenalizedOptimizer("adam", poise.L1(0.1), update="proximal"), loss="mse")
    return model


def path_of(
    held=None,
    *,
    strengths=(0.01, 0.1, 1.0),
    cv: int = 3,
    n_init: int = 1,
    given_rows: bool = False,
    inputs: int = 4,
    names: Iterable[str] | None = None,
    diverged: Iterable[tuple[int, int, int]] = (),
    knows_features: bool = True,
    **of_path,
) -> RegularizationPath:
    """A path.

    Args:
        held: (cv, n_init, strengths) the losses on the rows held out; None for random ones.
        strengths, cv, n_init, inputs: how many there are, and which.
        given_rows: whether given rows are held out, so that no lane holds nothing out.
        diverged: (fold, seed, position of the strength) of the lanes that did.
        knows_features: whether it can be told which inputs are read.
    """
    random = np.random.default_rng(0)
    model = model_of(inputs)
    replicas = [(fold, seed) for seed in range(n_init) for fold in ([0] if given_rows else [*range(cv), -1])]
    own = [at for at, (fold, _) in enumerate(replicas) if given_rows or fold < 0]
    lead = (len(replicas), len(strengths))
    every = [random.normal(size=(*lead, *weight.shape)).astype("float32") for weight in model.weights]
    # One input more is lost at every strength.
    read = random.permuted(np.broadcast_to(np.arange(inputs), (len(replicas), inputs)), axis=1)
    read = read[:, None, :] >= np.arange(len(strengths))[None, :, None]
    every[0] *= read[..., None]
    held = random.random((cv, n_init, len(strengths))) if held is None else np.asarray(held, float)
    rows = [
        {
            "fold": fold,
            "seed": seed,
            "strength": strength,
            "loss": random.random(),
            "held_loss": np.nan if fold < 0 else held[fold, seed, at],
            "penalty": random.random(),
            "residual": random.random(),
            "gradient": random.random(),
            "zeros": int((every[0][number, at] == 0).sum()),
            "units": int((every[0][number, at] != 0).any(axis=0).sum()) + 1,
            "settled": 100 * at,
            "diverged": (fold, seed, at) in set(diverged),
            "failed": False,
            "seconds": 0.5,
        }
        for number, (fold, seed) in enumerate(replicas)
        for at, strength in enumerate(strengths)
    ]
    sizes = {"net/first/kernel": np.linalg.norm(every[0], axis=-1), "net/head/kernel": np.abs(every[6])}
    lanes = Lanes(pd.DataFrame(rows), sizes, read if knows_features else None, [weight[own] for weight in every])
    rules = (
        poise.Rule("first/kernel", poise.GroupLasso(0.1, groups="inputs")),
        poise.Rule("head/kernel", poise.L2(0.05)),
    )
    resolved = resolve(rules, model.trainable_variables, model.weights).config
    arguments = {
        "rules": rules,
        "resolved": resolved,
        "training": Training(epochs=3, tolerance=0.1),
        "seconds": 1.5,
        **of_path,
    }
    return RegularizationPath(
        lanes,
        keras.saving.serialize_keras_object(model),
        state_of(model),
        names=None if names is None else tuple(names),
        **arguments,
    )
