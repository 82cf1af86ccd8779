"""Which arrays of a tree the rules see, under which paths, with which roles and axes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from optax_cases import apply_updates, penalized

import poise
import poise.optax
from poise.optax.parameters import Parameters
from poise.rules.layers import info_of
from poise.rules.rule import kind_of

KEY = jax.random.key(0)


class Blocks(eqx.Module):
    """Equinox modules of every kind, and two arrays that belong to none of them."""

    linear: eqx.nn.Linear
    layers: list
    convolution: eqx.nn.Conv2d
    grouped: eqx.nn.Conv1d
    transposed: eqx.nn.ConvTranspose1d
    embedding: eqx.nn.Embedding
    cell: eqx.nn.GRUCell
    memory: eqx.nn.LSTMCell
    norm: eqx.nn.LayerNorm
    rms: eqx.nn.RMSNorm
    groups: eqx.nn.GroupNorm
    reparametrized: eqx.nn.WeightNorm
    slope: eqx.nn.PReLU
    table: jax.Array
    count: jax.Array

    def __init__(self) -> None:
        self.linear = eqx.nn.Linear(3, 4, key=KEY)
        self.layers = [eqx.nn.Linear(4, 2, use_bias=False, key=KEY)]
        self.convolution = eqx.nn.Conv2d(3, 4, 5, key=KEY)
        self.grouped = eqx.nn.Conv1d(4, 6, 5, groups=2, key=KEY)
        self.transposed = eqx.nn.ConvTranspose1d(3, 4, 5, key=KEY)
        self.embedding = eqx.nn.Embedding(7, 3, key=KEY)
        self.cell = eqx.nn.GRUCell(3, 4, key=KEY)
        self.memory = eqx.nn.LSTMCell(3, 4, key=KEY)
        self.norm = eqx.nn.LayerNorm(4)
        self.rms = eqx.nn.RMSNorm(4)
        self.groups = eqx.nn.GroupNorm(2, 4)
        self.reparametrized = eqx.nn.WeightNorm(eqx.nn.Linear(3, 4, use_bias=False, key=KEY))
        self.slope = eqx.nn.PReLU()
        self.table = jnp.zeros((2, 3))
        self.count = jnp.zeros((), "int32")


def sizes(tree: Any) -> dict[str, tuple[str, int | None, int | None]]:
    """By path the role of an array, and the numbers of its inputs and outputs."""
    table = {}
    for leaf in Parameters.of(tree).leaves:
        info = info_of(leaf)
        inputs, outputs = info.sides.inputs, info.sides.outputs
        table[leaf.path] = kind_of(leaf), inputs and inputs.count, outputs and outputs.count
    return table


def test_equinox_modules_show_roles_and_axes() -> None:
    assert sizes(eqx.filter(Blocks(), eqx.is_inexact_array)) == {
        "linear/weight": ("kernel", 3, 4),
        "linear/bias": ("biases", 4, 4),
        "layers/0/weight": ("kernel", 4, 2),
        "convolution/weight": ("kernel", 3, 4),
        "convolution/bias": ("biases", 4, 4),
        "grouped/weight": ("kernel", 4, 6),
        "grouped/bias": ("biases", 6, 6),
        "transposed/weight": ("kernel", 3, 4),
        "transposed/bias": ("biases", 4, 4),
        "embedding/weight": ("embeddings", 7, 3),
        "cell/weight_ih": ("kernel", 3, 4),
        "cell/weight_hh": ("kernel", 4, 4),
        "cell/bias": ("biases", 4, 4),
        "cell/bias_n": ("biases", 4, 4),
        "memory/weight_ih": ("kernel", 3, 4),
        "memory/weight_hh": ("kernel", 4, 4),
        "memory/bias": ("biases", 4, 4),
        "norm/weight": ("scales", 4, 4),
        "norm/bias": ("biases", 4, 4),
        "rms/weight": ("scales", 4, 4),
        "rms/bias": ("biases", 4, 4),
        "groups/weight": ("scales", 4, 4),
        "groups/bias": ("biases", 4, 4),
        "reparametrized/layer/weight": ("kernel", 3, 4),
        "reparametrized/g": ("scales", 4, 4),
        "slope/negative_slope": ("slope", None, None),
        "table": ("kernel", None, None),
    }


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("kind", ["conv", "grouped", "transposed", "linear", "cell"])
def test_units_that_a_group_penalty_removes_from_equinox_modules_are_those_units(kind: str, side: str) -> None:
    """After all entries of group 1 are zero, the output does not depend on input 1, or output 1 is zero."""
    layer: Any = {
        "conv": lambda: eqx.nn.Conv1d(4, 6, 3, use_bias=False, key=KEY),
        "grouped": lambda: eqx.nn.Conv1d(4, 6, 3, groups=2, use_bias=False, key=KEY),
        "transposed": lambda: eqx.nn.ConvTranspose1d(4, 6, 3, groups=2, use_bias=False, key=KEY),
        "linear": lambda: eqx.nn.Linear(4, 6, use_bias=False, key=KEY),
        "cell": lambda: eqx.nn.GRUCell(4, 6, key=KEY),
    }[kind]()
    name = "weight_ih" if kind == "cell" else "weight"
    (leaf,) = [leaf for leaf in Parameters.of(layer).leaves if leaf.path == name]
    sides = info_of(leaf).sides
    units = sides.inputs if side == "inputs" else sides.outputs
    assert units is not None
    zeroed = np.where(units.numbers == 1, 0.0, np.asarray(getattr(layer, name)))
    layer = eqx.tree_at(lambda layer: getattr(layer, name), layer, jnp.asarray(zeroed, "float32"))
    if kind == "cell":
        gates = np.asarray(layer.weight_ih).reshape(3, 6, 4)
        assert not (gates[:, :, 1] if side == "inputs" else gates[:, 1]).any()
        return
    x = jax.random.normal(KEY, (4,) if kind == "linear" else (4, 9))
    if side == "inputs":
        np.testing.assert_array_equal(layer(x), layer(x.at[1].set(5.0)))
    else:
        assert not np.asarray(layer(x))[1].any()
        assert np.asarray(layer(x))[0].any()


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(7, 3, rngs=rngs)
        self.layers = nnx.List([nnx.Conv(3, 4, (5,), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)])
        self.attention = nnx.MultiHeadAttention(2, 4, 4, decode=False, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)


def test_flax_nnx_shows_roles_and_axes_by_names() -> None:
    state = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    expected = {
        "embed/embedding": ("embeddings", 7, 3),
        "layers/0/kernel": ("kernel", 3, 4),
        "layers/0/bias": ("biases", 4, 4),
        "layers/1/scale": ("scales", 4, 4),
        "layers/1/bias": ("biases", 4, 4),
        "attention/query/kernel": ("kernel", 4, 4),
        "attention/out/kernel": ("kernel", 4, 4),
        "attention/out/bias": ("biases", 4, 4),
        "head/kernel": ("kernel", 4, 1),
    }
    table = sizes(state)
    assert {path: table[path] for path in expected} == expected
    assert sizes(nnx.as_pure(state)) == table  # without the boxes, as nnx.Optimizer passes it to `update`
    assert {path: sizes(Network(nnx.Rngs(0)))[path] for path in expected} == expected  # a module is a tree as well


def test_boxes_of_flax_linen_have_no_name() -> None:
    initializer = linen.with_partitioning(linen.initializers.ones, ("rows", "columns"))
    params = linen.Dense(4, kernel_init=initializer).init(KEY, jnp.ones((1, 3)))["params"]
    assert sizes({"Dense_0": params}) == {"Dense_0/bias": ("biases", 4, 4), "Dense_0/kernel": ("kernel", 3, 4)}


def test_names_of_haiku_and_plain_trees() -> None:
    tree = {"mlp/~/linear_0": {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}, "blocks": [jnp.ones((2, 3, 4))]}
    assert sizes(tree) == {
        "blocks/0": ("kernel", None, None),
        "mlp/~/linear_0/b": ("biases", 4, 4),
        "mlp/~/linear_0/w": ("kernel", 3, 4),
    }
    assert sizes(jnp.ones((3, 4))) == {"params": ("kernel", 3, 4)}
    assert list(sizes({"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}})) == ["a/b (1 of 2)", "a/b (2 of 2)"]


def penalize(tx: Any, params: Any, gradients: Any) -> Any:
    updates, _ = tx.update(gradients, tx.init(params), params)
    return apply_updates(params, updates)


def test_a_rule_selects_by_path_role_and_predicate() -> None:
    params = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones((2, 2))}}
    zero = jax.tree.map(jnp.zeros_like, params)
    for select, expected in [
        ("a/kernel", [0, 1, 0]),
        (poise.Role.KERNELS, [0, 1, 1]),
        (poise.Role.BIASES, [1, 0, 0]),
        (lambda leaf: len(leaf.shape) == 1 and leaf.path.startswith("a/"), [1, 0, 0]),
    ]:
        tx = penalized(optax.sgd, poise.Rule(select, poise.L1(20.0)), learning_rate=0.1)
        after = penalize(tx, params, zero)
        assert [not leaf.any() for leaf in jax.tree.leaves(after)] == expected


def test_masked_frozen_and_integer_arrays_are_left_alone() -> None:
    params = {
        "new": {"kernel": jnp.ones((2, 2))},
        "old": {"kernel": jnp.ones((2, 2))},
        "none": None,
        "step": jnp.zeros((), "int32"),
    }
    gradients = {**jax.tree.map(jnp.zeros_like, params), "step": None}
    tx = penalized(optax.sgd, poise.L1(20.0), learning_rate=0.1)

    updates, _ = tx.update({**gradients, "old": {"kernel": None}}, tx.init(params), params)
    assert updates["old"]["kernel"] is None
    assert updates["step"] is None
    np.testing.assert_array_equal(updates["new"]["kernel"], -1.0)

    mask = {"new": True, "old": False, "none": None, "step": False}
    for kind in (optax.adam, optax.sgd):
        masked = optax.masked(penalized(kind, poise.L1(20.0), learning_rate=0.1), mask)
        updates, _ = jax.jit(masked.update)(gradients, masked.init(params), params)
        np.testing.assert_array_equal(updates["old"]["kernel"], 0.0)
        np.testing.assert_array_equal(updates["new"]["kernel"], -1.0)
