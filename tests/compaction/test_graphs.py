"""Two hundred random graphs with random dead units give the same outputs from fewer weights; sixty per other backend."""

import keras
import pytest
from hypothesis import given, seed, settings

import poise

from .random_graphs import HEALTH_CHECKS, IMAGE, SEQUENCE, VECTOR, built, kill_at_random, recipes
from .zeroing import assert_same, randomized

SHARES = (
    [(IMAGE, share) for share in range(4)] + [(VECTOR, share) for share in range(4)] + [(SEQUENCE, 0), (SEQUENCE, 1)]
)
if keras.backend.backend() != "jax":
    SHARES = [(IMAGE, 0), (VECTOR, 0), (SEQUENCE, 0)]
NAMES = {IMAGE: "images", VECTOR: "vectors", SEQUENCE: "sequences"}
few = settings(derandomize=False, deadline=None, max_examples=20, database=None, suppress_health_check=HEALTH_CHECKS)


@pytest.mark.parametrize(("shape", "share"), SHARES, ids=lambda value: NAMES.get(value, value))
def test_a_random_graph_gives_the_same_outputs_from_fewer_weights(shape, share) -> None:
    sizes = []

    @seed(share)
    @given(recipe=recipes(shape))
    @few
    def check(recipe) -> None:
        keras.utils.clear_session(free_memory=False)
        model = randomized(built(shape, recipe), recipe.seed)
        kill_at_random(model, recipe.seed)

        smaller = poise.compact(model)

        assert_same(model, smaller)
        sizes.append((model.count_params(), smaller.count_params()))

    check()

    assert all(after <= before for before, after in sizes)
    assert sum(after < before for before, after in sizes) > len(sizes) / 3
