"""Chains: the two ways in which messages are passed give the same weights."""

from typing import Any

import jax
import numpy as np
import pytest

import poise
from poise.penalties import chains

pytestmark = pytest.mark.backends("jax")


@pytest.mark.parametrize("shape", [(7, 3), (1000,), (40, 30)], ids=str)
def test_messages_one_by_one_and_by_doubling_give_equal_weights(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    w, h = random.normal(size=shape).astype("float32"), random.uniform(0.1, 1.0, shape).astype("float32")
    results = []
    for longest in (2, 10_000):
        monkeypatch.setattr(chains, "LONG", longest)
        steps = [w, w.round(1), np.cumsum(w, axis=0)]
        # A function of its own, because JAX keeps the program of the last one.
        programs = [
            jax.jit(lambda w, h: poise.TotalVariation().prox(w, h, 0.5)),
            jax.jit(lambda w, h: poise.Slope().prox(w, 0.1, 1.0)),
        ]
        results.append([np.asarray(program(each, h)) for program in programs for each in steps])

    for one_by_one, doubled in zip(*results, strict=True):
        np.testing.assert_array_equal(one_by_one, doubled)
    assert len(np.unique(results[0][0])) < w.size
