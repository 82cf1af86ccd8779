"""What the variables of every layer are for, and along which axes their inputs and outputs lie.

The oracle is the layer itself: what an entry of a kernel belongs to is found by changing it.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from oracles import dependence
from oracles.autodiff import BACKEND
from oracles.compare import array

import poise
from poise.penalties.axes import Axes, Sides
from poise.rules.calling_code import find_layers
from poise.rules.layer_types import TABLE
from poise.rules.layers import info_of, is_registered, register_layers
from poise.rules.rule import kind_of, path_of

Array = np.ndarray


@dataclass(frozen=True)
class Row:
    """A layer and one of its variables.

    `inputs` and `outputs` are how many of the last axes of what goes in and comes out number the inputs and the
    outputs; 0 where the variable has no such side.
    """

    make: Callable[[], Any]
    shape: tuple[int, ...]
    variable: str = "kernel"
    inputs: int = 1
    outputs: int = 1
    part: str | None = None
    channels_first: bool = False


ROWS = {
    "Dense": Row(lambda: layers.Dense(3), (2,)),
    "Dense on a sequence": Row(lambda: layers.Dense(3), (4, 2)),
    "EinsumDense": Row(lambda: layers.EinsumDense("ab,bc->ac", output_shape=3), (2,)),
    "EinsumDense, outputs first": Row(lambda: layers.EinsumDense("ab,cb->ac", output_shape=3), (2,)),
    "EinsumDense, heads": Row(lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)), (3, 4), outputs=2),
    "EinsumDense, heads turned": Row(
        lambda: layers.EinsumDense("abc,cde->abed", output_shape=(None, 3, 2)), (3, 4), outputs=2
    ),
    "EinsumDense, per head": Row(
        lambda: layers.EinsumDense("bhi,hio->bho", output_shape=(2, 3)), (2, 4), inputs=2, outputs=2
    ),
    "EinsumDense, ellipsis": Row(lambda: layers.EinsumDense("...x,xy->...y", output_shape=3), (4, 2)),
    "Conv1D": Row(lambda: layers.Conv1D(3, 2), (4, 2)),
    "Conv2D": Row(lambda: layers.Conv2D(3, 2), (3, 3, 2)),
    "Conv3D": Row(lambda: layers.Conv3D(2, 2), (2, 2, 2, 2)),
    "Conv1D, groups": Row(lambda: layers.Conv1D(6, 2, groups=2), (3, 4)),
    "Conv2D, groups": Row(lambda: layers.Conv2D(4, (1, 2), groups=2), (2, 2, 6)),
    "Conv1DTranspose": Row(lambda: layers.Conv1DTranspose(3, 2), (3, 2)),
    "Conv2DTranspose": Row(lambda: layers.Conv2DTranspose(3, 2), (2, 2, 2)),
    "Conv3DTranspose": Row(lambda: layers.Conv3DTranspose(2, 2), (2, 2, 2, 3)),
    "DepthwiseConv1D": Row(lambda: layers.DepthwiseConv1D(2, depth_multiplier=2), (3, 3)),
    "DepthwiseConv2D": Row(lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), (3, 3, 3)),
    "SeparableConv1D, depthwise": Row(
        lambda: layers.SeparableConv1D(2, 2, depth_multiplier=2), (3, 3), "depthwise_kernel", outputs=0
    ),
    "SeparableConv2D, depthwise": Row(
        lambda: layers.SeparableConv2D(2, 2, depth_multiplier=2), (3, 3, 2), "depthwise_kernel", outputs=0
    ),
    "SeparableConv1D, pointwise": Row(
        lambda: layers.SeparableConv1D(2, 2, depth_multiplier=2), (3, 3), "pointwise_kernel", inputs=0
    ),
    "SeparableConv2D, pointwise": Row(
        lambda: layers.SeparableConv2D(3, 2, depth_multiplier=2), (3, 3, 2), "pointwise_kernel", inputs=0
    ),
    "MultiHeadAttention, query": Row(lambda: layers.MultiHeadAttention(2, 3), (4, 5), outputs=2, part="query"),
    "MultiHeadAttention, output": Row(
        lambda: layers.MultiHeadAttention(2, 3), (4, 2, 3), inputs=2, part="attention_output"
    ),
    "GroupQueryAttention, key": Row(lambda: layers.GroupQueryAttention(3, 4, 2), (4, 5), outputs=2, part="key"),
    "GroupQueryAttention, output": Row(
        lambda: layers.GroupQueryAttention(3, 4, 2), (4, 4, 3), inputs=2, part="attention_output"
    ),
    "TimeDistributed": Row(lambda: layers.TimeDistributed(layers.Conv1D(3, 2)), (2, 3, 2)),
    "SpectralNormalization": Row(lambda: layers.SpectralNormalization(layers.Conv1DTranspose(3, 2)), (3, 2)),
    "Dense in a model in a model": Row(
        lambda: keras.Sequential([keras.Sequential([layers.Conv1DTranspose(3, 2)])]), (3, 2)
    ),
    "Dense bias": Row(lambda: layers.Dense(3), (2,), "bias", inputs=0),
    "EinsumDense bias": Row(
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"),
        (3, 4), "bias", inputs=0, outputs=2,
    ),
    "BatchNormalization gamma": Row(layers.BatchNormalization, (2, 3), "gamma", inputs=0),
    "LayerNormalization gamma": Row(lambda: layers.LayerNormalization(axis=(-2, -1)), (2, 3), "gamma", 0, 2),
    "GroupNormalization beta": Row(lambda: layers.GroupNormalization(2), (3, 4), "beta", inputs=0),
    "RMSNormalization scale": Row(layers.RMSNormalization, (3,), "scale", inputs=0),
    "PReLU": Row(lambda: layers.PReLU(shared_axes=[1]), (2, 3), "alpha", inputs=0),
}  # fmt: skip

if TYPE_CHECKING or BACKEND == "torch":
    import torch
    from torch import nn

    def wrapped(make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: layers.TorchModuleWrapper(make())

    def weights_first(conv: Callable[[], Any], shape: tuple[int, ...]) -> Row:
        return Row(wrapped(conv), shape, "variable", channels_first=True)

    ROWS |= {
        "torch Linear": Row(wrapped(lambda: nn.Linear(2, 3)), (2,), "variable"),
        "torch Linear in a Sequential": Row(wrapped(lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh())), (2,), "variable"),
        "torch Conv1d": weights_first(lambda: nn.Conv1d(2, 3, 2), (2, 4)),
        "torch Conv2d": weights_first(lambda: nn.Conv2d(2, 3, 2), (2, 3, 3)),
        "torch Conv1d, groups": weights_first(lambda: nn.Conv1d(4, 6, 2, groups=2), (4, 3)),
        "torch ConvTranspose1d": weights_first(lambda: nn.ConvTranspose1d(2, 3, 2), (2, 4)),
        "torch ConvTranspose2d, groups": weights_first(lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (4, 2, 2)),
    }  # fmt: skip

ORACLE_FOR_OUTPUTS = {name: row for name, row in ROWS.items() if row.outputs}
ORACLE_FOR_INPUTS = {name: row for name, row in ROWS.items() if row.inputs}


def over(rows: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows.values(), ids=rows)


def built(row: Row) -> tuple[Any, keras.Variable]:
    """The layer that is called, and the variable of it."""
    keras.utils.set_random_seed(0)
    layer = row.make()
    if row.part is None:
        if not isinstance(layer, layers.TorchModuleWrapper):
            layer.build((None, *row.shape))
    elif isinstance(layer, layers.GroupQueryAttention):
        layer.build((None, 4, 5), (None, 4, 5))
    else:
        layer.build((None, 4, 5), (None, 4, 5))
    register_layers([layer])
    if row.part is not None:
        layer = next(sublayer for sublayer in layer._flatten_layers() if sublayer.name == row.part)
    variable = next(v for v in layer.weights if v.name == row.variable)
    for other in layer.trainable_variables:
        other.assign(np.random.default_rng(1).uniform(0.5, 1.5, other.shape))
    return layer, variable


def called(layer: Any, row: Row, x: Array) -> Callable[[], Array]:
    """Calls the layer; the outputs (or the inputs) are its last axis."""

    def call() -> Array:
        found = array(layer(ops.convert_to_tensor(x, "float32")))
        if row.channels_first:
            found = np.moveaxis(found, 1, -1)
        return found.reshape(*found.shape[: found.ndim - row.outputs], -1) if row.outputs else found

    return call


@over(ORACLE_FOR_OUTPUTS)
def test_outputs_are_what_output_j_depends_on(row: Row) -> None:
    layer, variable = built(row)
    # Negative, so that a slope of a PReLU matters.
    x = -np.random.default_rng(2).uniform(0.5, 1.5, (2, *row.shape)).astype("float32")
    numbers = dependence.by_outputs(called(layer, row, x), variable)
    sides = info_of(variable).sides

    assert sides.outputs is not None
    np.testing.assert_array_equal(sides.outputs.numbers, numbers)
    check_prox(variable, numbers, "outputs")


@over(ORACLE_FOR_INPUTS)
def test_inputs_are_what_matters_where_only_input_i_is_not_zero(row: Row) -> None:
    layer, variable = built(row)
    axes = (0,) if row.channels_first else tuple(range(len(row.shape) - row.inputs, len(row.shape)))
    x = dependence.only_one(int(np.prod([row.shape[axis] for axis in axes])), row.shape, axes)
    numbers = dependence.by_inputs(called(layer, row, x), variable)
    sides = info_of(variable).sides

    assert sides.inputs is not None
    np.testing.assert_array_equal(sides.inputs.numbers, numbers)
    check_prox(variable, numbers, "inputs")


def check_prox(variable: keras.Variable, numbers: Array, side: str) -> None:
    """A step of the group lasso is NumPy's, with the groups that the layer itself has shown."""
    w = np.random.default_rng(3).normal(size=variable.shape)
    for number in range(numbers.max() + 1):
        w[numbers == number] *= 0.2 + number
    sizes = [np.sqrt((w[numbers == n] ** 2).sum() / (numbers == n).sum()) for n in range(numbers.max() + 1)]
    strength = float(np.median(sizes))
    penalty = poise.GroupLasso(groups=side).bind(info_of(variable).sides)
    step = ops.convert_to_tensor(w, "float32")

    actual = array(penalty.prox(step, 1.0, strength))

    np.testing.assert_allclose(actual, dependence.groups(w, numbers, 1.0, strength), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- layers that are called in their own way

CELLS = {
    "SimpleRNNCell": (lambda: layers.SimpleRNNCell(3), (2,), (3,), 1),
    "GRUCell": (lambda: layers.GRUCell(3), (2,), (3,), 1),
    "LSTMCell": (lambda: layers.LSTMCell(3), (2,), (3,), 2),
    "ConvLSTMCell": (lambda: layers.ConvLSTM1D(2, 2, padding="same").cell, (3, 2), (3, 2), 2),
}


@pytest.mark.parametrize(("make", "shape", "state", "states"), CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "bias"])
def test_units_of_recurrent_cells_have_an_entry_of_every_gate(
    make: Any, shape: tuple, state: tuple, states: int, name: str
) -> None:
    keras.utils.set_random_seed(0)
    cell = make()
    cell.build((None, *shape), (None, *state)) if "Conv" in type(cell).__name__ else cell.build((None, *shape))
    register_layers([cell])
    for weight in cell.weights:
        weight.assign(np.random.default_rng(1).uniform(-0.5, 0.5, weight.shape))
    variable = next(v for v in cell.weights if v.name == name)
    random = np.random.default_rng(2)

    def call(x: Array, h: Array) -> Array:
        memory = [np.full((len(x), *state), 0.7, "float32")] * (states - 1)
        found, _ = cell(ops.convert_to_tensor(x), [ops.convert_to_tensor(each) for each in [h, *memory]])
        return array(found)

    x, h = (random.normal(size=(2, *own)).astype("float32") for own in (shape, state))
    sides = info_of(variable).sides
    assert sides.outputs is not None
    numbers = dependence.by_outputs(lambda: call(x, h), variable)
    np.testing.assert_array_equal(sides.outputs.numbers, numbers)
    check_prox(variable, numbers, "outputs")
    if name == "kernel":
        x = dependence.only_one(shape[-1], shape, (-1,))
        h = np.zeros((len(x), *state), "float32")
    if name == "recurrent_kernel":
        h = dependence.only_one(state[-1], state, (-1,))
        x = np.zeros((len(h), *shape), "float32")
    if name != "bias":
        numbers = dependence.by_inputs(lambda: call(x, h), variable)
        assert sides.inputs is not None
        np.testing.assert_array_equal(sides.inputs.numbers, numbers)


@pytest.mark.parametrize("make", [layers.Embedding, layers.ReversibleEmbedding], ids=lambda make: make.__name__)
def test_inputs_of_embeddings_are_the_words(make: Any) -> None:
    layer = make(4, 3)
    layer.build((None, 1))
    register_layers([layer])
    words = ops.convert_to_tensor(np.arange(4)[:, None])
    variable = layer.embeddings if isinstance(layer.embeddings, keras.Variable) else layer.weights[0]

    def call() -> Array:
        return array(layer(words))

    info = info_of(variable)
    assert info.role == "embeddings"
    assert info.sides.outputs is not None
    assert info.sides.inputs is not None
    np.testing.assert_array_equal(info.sides.outputs.numbers, dependence.by_outputs(call, variable))
    np.testing.assert_array_equal(info.sides.inputs.numbers, dependence.by_inputs(call, variable))


@pytest.mark.parametrize("make", [layers.SeparableConv1D, layers.SeparableConv2D], ids=lambda make: make.__name__)
def test_filters_between_the_two_kernels_of_a_separable_convolution(make: Any) -> None:
    """Where depthwise filter j alone is left, the pointwise kernel matters by its row j alone."""
    layer = make(2, 2, depth_multiplier=2)
    shape = (3,) * (1 if make is layers.SeparableConv1D else 2) + (3,)
    layer.build((None, *shape))
    register_layers([layer])
    depthwise, pointwise, _ = layer.weights
    x = ops.convert_to_tensor(np.random.default_rng(0).uniform(0.5, 1.5, (1, *shape)).astype("float32"))
    filters, rows = info_of(depthwise).sides.outputs, info_of(pointwise).sides.inputs
    assert filters is not None
    assert rows is not None
    assert filters.count == rows.count == 6

    def call() -> Array:
        per_filter = []
        for number in range(6):
            depthwise.assign(np.where(filters.numbers == number, 1.0, 0.0))
            per_filter.append(array(layer(x)))
        return np.stack(per_filter)

    np.testing.assert_array_equal(rows.numbers, dependence.by_inputs(call, pointwise))


@pytest.mark.backends("torch")
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_units_of_torch_recurrent_layers(kind: str) -> None:
    torch.manual_seed(0)
    module = getattr(nn, kind)(2, 3, batch_first=True)
    layer = layers.TorchModuleWrapper(module)
    register_layers([layer])
    names = [name for name, _ in module.named_parameters()]
    x = torch.rand(1, 1, 2)
    start = torch.rand(1, 1, 3)
    h = (start, torch.rand(1, 1, 3)) if kind == "LSTM" else start

    for name, variable in zip(names, layer.weights, strict=True):
        numbers = dependence.by_outputs(lambda: array(layer(x, h)[0]), variable)
        info = info_of(variable)
        assert info.role == ("biases" if "bias" in name else "kernel")
        assert info.sides.outputs is not None
        np.testing.assert_array_equal(info.sides.outputs.numbers, numbers)


@pytest.mark.backends("torch")
def test_roles_of_torch_parameters() -> None:
    modules = {
        "linear": nn.Linear(2, 3),
        "norm": nn.LayerNorm([2, 3]),
        "batch": nn.BatchNorm1d(3),
        "slope": nn.PReLU(),
        "words": nn.Embedding(4, 2),
        "attention": nn.MultiheadAttention(4, 2),
        "normed": torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
    }
    module = nn.ModuleDict(modules)
    module.register_parameter("class_token", nn.Parameter(torch.zeros(1, 1, 4)))
    module.register_parameter("mine", nn.Parameter(torch.zeros(2, 3)))
    layer = layers.TorchModuleWrapper(module)
    register_layers([layer])
    roles = {name: kind_of(v) for (name, _), v in zip(module.named_parameters(), layer.weights, strict=True)}

    assert roles == {
        "class_token": "token",
        "mine": "kernel",
        "linear.weight": "kernel",
        "linear.bias": "biases",
        "norm.weight": "scales",
        "norm.bias": "biases",
        "batch.weight": "scales",
        "batch.bias": "biases",
        "slope.weight": "slope",
        "words.weight": "embeddings",
        "attention.in_proj_weight": "kernel",
        "attention.in_proj_bias": "biases",
        "attention.out_proj.weight": "kernel",
        "attention.out_proj.bias": "biases",
        "normed.bias": "biases",
        "normed.parametrizations.weight.original0": "scales",
        "normed.parametrizations.weight.original1": "kernel",
    }
    mine = next(v for (name, _), v in zip(module.named_parameters(), layer.weights, strict=True) if name == "mine")
    with pytest.raises(
        ValueError, match=r"outputs: poise does not know which axis that is in a variable of this layer type"
    ):
        poise.GroupLasso().bind(info_of(mine).sides).check(mine.shape)


@pytest.mark.backends("jax", "tensorflow")
def test_parameters_of_a_jax_layer_are_known_by_their_names() -> None:
    def forward(params: Any, inputs: Any) -> Any:
        return inputs @ params["dense"]["kernel"] + params["dense"]["bias"]

    params = {
        "dense": {"kernel": np.ones((2, 3)), "bias": np.ones(3)},
        "norm": {"scale": np.ones(3)},
        "query": {"kernel": np.ones((4, 2, 3)), "bias": np.ones((2, 3))},
        "out": {"kernel": np.ones((2, 3, 4))},
        "words": {"embedding": np.ones((5, 2))},
        "cls": np.ones((1, 1, 4)),
    }
    layer = layers.JaxLayer(forward, params=params)
    register_layers([layer])
    infos = keras.tree.map_structure(info_of, layer.params)

    def found(*path: str) -> tuple:
        info = infos
        for part in path:
            info = info[part]
        return info.role, info.sides.inputs, info.sides.outputs

    assert found("dense", "kernel") == ("kernel", Axes.along((2, 3), 0), Axes.along((2, 3), 1))
    assert found("dense", "bias")[0] == "biases"
    assert found("norm", "scale")[0] == "scales"
    assert found("query", "kernel") == ("kernel", Axes.along((4, 2, 3), 0), Axes.along((4, 2, 3), 1, 2))
    assert found("query", "bias")[0] == "biases"
    assert found("out", "kernel") == ("kernel", Axes.along((2, 3, 4), 0, 1), Axes.along((2, 3, 4), 2))
    assert found("words", "embedding")[0] == "embeddings"
    assert found("cls")[0] == "token"


# ---------------------------------------------------------------- roles


class Patches(layers.Layer):
    """As vision transformers have it: a class token and a position table beside a projection."""

    def build(self, shape: tuple) -> None:
        self.tokens = [self.add_weight((1, 1, shape[-1]), name=name) for name in ("class_token", "cls", "dist_token")]
        self.positions = [self.add_weight((5, 3), name=name) for name in ("pos_embed", "position_embeddings")]
        self.words = self.add_weight((5, 3), name="token_embedding")
        self.w = self.add_weight((shape[-1], 3), name="w")
        self.filters = self.add_weight((2, 2, shape[-1], 3), name="filters")
        self.latent = self.add_weight((1, 1, 3), name="latent")
        self.theta = self.add_weight((3,), name="theta")

    def call(self, x: Any) -> Any:
        return x


def roles(layer: keras.layers.Layer) -> dict[str, str]:
    register_layers([layer])
    return {variable.name: kind_of(variable) for variable in layer.variables}


def test_tokens_and_position_tables_of_a_custom_layer_are_not_kernels() -> None:
    layer = Patches()
    layer.build((None, 4, 3))

    assert roles(layer) == {
        "class_token": "token",
        "cls": "token",
        "dist_token": "token",
        "pos_embed": "token",
        "position_embeddings": "token",
        "token_embedding": "embeddings",
        "w": "kernel",
        "filters": "kernel",
        "latent": "scales",
        "theta": "scales",
    }
    selected = [v.name for v in layer.trainable_variables if poise.Rule(poise.Role.KERNELS, poise.L2()).applies_to(v)]
    assert selected == ["w", "filters"]
    assert all(poise.Rule(poise.Role.ALL, poise.L2()).applies_to(v) for v in layer.trainable_variables)


def test_kernels_of_a_custom_layer_follow_the_convention_of_keras() -> None:
    layer = Patches()
    layer.build((None, 4, 3))
    register_layers([layer])
    for variable in (layer.w, layer.filters):
        sides = info_of(variable).sides
        assert (sides.inputs, sides.outputs) == (Axes.along(variable.shape, -2), Axes.along(variable.shape, -1))


def test_statistics_and_seeds_are_state() -> None:
    batch = layers.BatchNormalization()
    batch.build((None, 3))
    assert roles(batch) == {"gamma": "scales", "beta": "biases", "moving_mean": "state", "moving_variance": "state"}
    spectral = layers.SpectralNormalization(layers.Dense(2))
    spectral.build((None, 3))
    assert roles(spectral) == {"kernel": "kernel", "bias": "biases", "vector_u": "state"}
    assert set(roles(layers.Dropout(0.5)).values()) == {"state"}
    norm = layers.Normalization()
    norm.build((None, 3))
    assert set(roles(norm).values()) == {"state"}


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.parametrize(
    "make",
    [lambda: layers.Dense(4), lambda: layers.EinsumDense("ab,bc->ac", output_shape=4), lambda: layers.Embedding(4, 4)],
    ids=["Dense", "EinsumDense", "Embedding"],
)
def test_what_quantization_adds_is_state(make: Any, mode: str) -> None:
    layer = make()
    if mode == "float8" and isinstance(layer, layers.Embedding):
        mode = "int8"  # Keras has no float8 embeddings
    layer.build((None, 4))
    before = {variable.name for variable in layer.variables}
    layer.quantize(mode)

    found = roles(layer)

    assert {name: role for name, role in found.items() if name not in before} == dict.fromkeys(
        set(found) - before, "state"
    )
    assert set(found) > before


def test_low_rank_factors_are_kernels_between_inputs_rank_and_outputs() -> None:
    dense, words = layers.Dense(3), layers.Embedding(5, 3)
    dense.build((None, 2))
    words.build((None,))
    dense.enable_lora(4)
    words.enable_lora(4)
    assert roles(dense) == {"lora_kernel_a": "kernel", "lora_kernel_b": "kernel", "bias": "biases", "kernel": "kernel"}
    assert set(roles(words).values()) == {"embeddings"}
    for variable in (dense.lora_kernel_a, dense.lora_kernel_b, words.lora_embeddings_a, words.lora_embeddings_b):
        sides = info_of(variable).sides
        assert (sides.inputs, sides.outputs) == (Axes.along(variable.shape, 0), Axes.along(variable.shape, 1))


def test_a_shared_variable_has_the_role_of_its_own_layer() -> None:
    """A custom layer that holds the kernel of another one, and stands before it in the model."""

    class Tied(layers.Layer):
        def __init__(self, other: Any) -> None:
            super().__init__()
            self.theirs = other.kernel

        def call(self, x: Any) -> Any:
            return x

    conv = layers.Conv1DTranspose(3, 2)
    conv.build((None, 4, 2))
    model = keras.Sequential([Tied(conv), conv])
    for order in (model, keras.Sequential([conv, Tied(conv)])):
        register_layers([order])
        assert info_of(conv.kernel).sides.outputs == Axes.along(conv.kernel.shape, -2)


def test_every_keras_layer_that_makes_weights_has_a_row() -> None:
    kinds = [kind for kind in vars(layers).values() if inspect.isclass(kind) and issubclass(kind, layers.Layer)]
    without = {"Layer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}  # the last three are described by what they wrap
    for kind in kinds:
        makers = [base for base in kind.__mro__ if "add_weight(" in _source(base) and base.__name__ != "Layer"]
        if makers and kind.__name__ not in without:
            assert any(base.__name__ in TABLE for base in kind.__mro__), (
                f"{kind.__name__} has no row in poise.rules.layer_types"
            )


def _source(kind: type) -> str:
    is_of_layers = kind.__module__.startswith("keras.src.layers")
    return inspect.getsource(kind) if is_of_layers and kind.__name__ not in ("Layer", "RNN") else ""


# ---------------------------------------------------------------- in the optimizer


def weak_and_strong(count: int, shape: tuple[int, ...], axes: Axes) -> Array:
    scale = np.linspace(0.05, 1.0, count)[axes.numbers]
    return np.random.default_rng(0).normal(size=shape) * scale


TRAINED = {
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3), (8, 8, 6), Axes.along((3, 3, 4, 6), 2)),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), (8, 8, 6), Axes.along((3, 3, 6, 1), 2)),
    "LSTM": (lambda: layers.LSTM(5), (4, 3), Axes.blocks((3, 20), 1, 4)),
    "GRU": (lambda: layers.GRU(5), (4, 3), Axes.blocks((3, 15), 1, 3)),
}


@pytest.mark.parametrize(("make", "shape", "axes"), TRAINED.values(), ids=TRAINED)
def test_whole_units_vanish_in_training(make: Any, shape: tuple, axes: Axes) -> None:
    """Under a prediction loss of zero a step is the prox alone."""
    model = keras.Sequential([keras.Input(shape), make()])
    kernel = model.trainable_variables[0]
    w = weak_and_strong(axes.count, kernel.shape, axes)
    kernel.assign(w)
    rule = poise.Rule("*/kernel", poise.GroupLasso(0.4, groups="outputs"))
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(1.0), rule, update="proximal"), loss="mse")

    model.fit(np.zeros((1, *shape)), np.zeros((1, *model.output_shape[1:])), sample_weight=np.zeros(1), verbose=0)

    expected = dependence.groups(w, axes.numbers, 1.0, 0.4)
    np.testing.assert_allclose(array(kernel), expected, rtol=1e-4, atol=1e-5)
    assert 0.0 < np.mean(expected == 0) < 1.0


def test_slopes_of_prelu_are_not_penalized_by_default() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2), layers.PReLU(alpha_initializer="ones"), layers.Dense(1)]
    )
    rules = [poise.L2(1.0), poise.Rule(poise.Role.SCALES, poise.L2(1.0), name="scales")]
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), rules[:1]), loss="mse")
    model.fit(np.zeros((4, 3)), np.zeros(4), sample_weight=np.zeros(4), verbose=0)

    np.testing.assert_array_equal(array(model.layers[1].alpha), 1.0)
    with pytest.raises(ValueError, match="Rule 'scales' matches none of the"):
        poise.PenalizedOptimizer("sgd", rules).build(model.trainable_variables)


def float8(optimizer: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
    model.layers[0].quantize("float8")
    model.compile(optimizer, loss="mse")
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    model.fit(x, 2 * x[:, :1], batch_size=16, epochs=2, shuffle=False, verbose=0)
    return model


def test_float8_scales_are_what_stock_keras_makes_them() -> None:
    stock = float8("sgd").layers[0]
    with pytest.warns(UserWarning, match="Rule 'scales' has no effect"):
        scales = float8(poise.PenalizedOptimizer("sgd", poise.Rule(poise.Role.SCALES, poise.L2(0.5)))).layers[0]
    everything = float8(poise.PenalizedOptimizer("sgd", poise.Rule(poise.Role.ALL, poise.L2(0.5)))).layers[0]
    for name in ("inputs_scale", "inputs_amax_history", "kernel_scale", "outputs_grad_scale"):
        assert array(getattr(scales, name)).tolist() == array(getattr(stock, name)).tolist()
    assert array(everything.inputs_scale) == array(stock.inputs_scale)


def test_float8_scales_cannot_be_named_by_a_rule() -> None:
    with pytest.raises(
        ValueError, match=r"Rule 'inputs_scale' matches '.*inputs_scale', which is not a trainable parameter"
    ):
        float8(poise.PenalizedOptimizer("sgd", poise.Rule("inputs_scale", poise.L2(0.5))))


@pytest.mark.backends("jax", "torch")
def test_float8_trains_with_an_average_of_the_weights() -> None:
    """Stock Keras fails on TensorFlow."""
    stock = float8(keras.optimizers.SGD(0.05, use_ema=True))
    model = float8(poise.PenalizedOptimizer(keras.optimizers.SGD(0.05, use_ema=True), poise.L2(0.0)))
    for ours, theirs in zip(model.weights, stock.weights, strict=True):
        np.testing.assert_allclose(array(ours), array(theirs), rtol=1e-5)


def test_summary_has_the_roles_of_the_table() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.PReLU(), layers.BatchNormalization()])

    assert poise.summary(model).table["role"].tolist() == [
        "kernel",
        "biases",
        "slope",
        "scales",
        "biases",
        "state",
        "state",
    ]


# ---------------------------------------------------------------- finding the layers


def fresh() -> Any:
    return keras.Sequential([keras.Input((4, 2)), layers.Conv1DTranspose(3, 2), layers.Dense(1)])


def filters_of(optimizer: poise.PenalizedOptimizer) -> Any:
    (_, penalty), *_ = optimizer.targets[0].penalties
    return penalty.sides.outputs


GROUPS = poise.GroupLasso(0.1)


def test_the_model_is_found_in_the_calling_function() -> None:
    model = fresh()

    def train() -> poise.PenalizedOptimizer:
        optimizer = poise.PenalizedOptimizer("sgd", GROUPS)
        optimizer.build(model.trainable_variables)
        return optimizer

    assert filters_of(train()) == Axes.along((2, 3, 2), 1)


def test_the_model_is_found_in_the_object_that_trains_it_and_in_a_list() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.net = fresh()
            self.optimizer = poise.PenalizedOptimizer("sgd", GROUPS)

        def train(self) -> None:
            self.optimizer.build(self.net.trainable_variables)

    trainer = Trainer()
    trainer.train()
    assert filters_of(trainer.optimizer) == Axes.along((2, 3, 2), 1)

    models = [fresh(), fresh()]
    variables = [variable for own in models for variable in own.trainable_variables]
    assert len(find_layers(variables)) == 2


def variables_without_their_model() -> list:
    return fresh().trainable_variables


def test_groups_of_a_kernel_of_an_unknown_layer_are_refused() -> None:
    variables = variables_without_their_model()
    assert not any(map(is_registered, variables))
    for side in ("outputs", "inputs"):
        with pytest.raises(ValueError, match=rf"groups along the {side}: the layer of this variable is unknown"):
            poise.PenalizedOptimizer("sgd", poise.GroupLasso(0.1, groups=side)).build(variables)
    optimizer = poise.PenalizedOptimizer("sgd", poise.GroupLasso(0.1, groups=1))
    optimizer.build(variables)
    poise.PenalizedOptimizer("sgd", poise.L1(0.1)).build(variables)
    assert optimizer.targets[0].path == path_of(variables[0])


def test_a_matrix_of_an_unknown_layer_has_its_outputs_last() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    variables = [keras.Variable(np.ones((2, 3)), name="kernel")]
    optimizer = poise.PenalizedOptimizer("sgd", GROUPS)
    optimizer.build(variables)
    assert filters_of(optimizer) == Axes.along((2, 3), 1)
    assert model.built


# ---------------------------------------------------------------- penalties on other axes

SHAPE = (2, 3, 4)
OTHER_AXES = {
    "one axis": Axes.along(SHAPE, 1),
    "merged": Axes.along(SHAPE, 0, 2),
    "merged, turned": Axes.along(SHAPE, 2, 0),
    "blocks": Axes.blocks(SHAPE, 2, 2),
    "across": Axes.across(SHAPE, 2, 2, 1),
    "across, turned": Axes.across(SHAPE, 2, 2, 0),
}
ON_AXES = {
    "GroupLasso": lambda: poise.GroupLasso(groups="outputs"),
    "GroupLasso of lists": lambda: poise.GroupLasso(groups=[[0], [1]], axis="outputs", factors=[0.0, 1.0]),
    "SparseGroupLasso": lambda: poise.SparseGroupLasso(groups="outputs"),
    "SparseGroupLasso of lists": lambda: poise.SparseGroupLasso(groups=[[1]], axis="outputs"),
    "NuclearNorm": lambda: poise.NuclearNorm(),
    "Orthogonal": lambda: poise.Orthogonal(),
    "Anchored": lambda: poise.Anchored(poise.GroupLasso(groups="outputs"), np.full(SHAPE, 0.25)),
}


@pytest.mark.parametrize("axes", OTHER_AXES.values(), ids=OTHER_AXES)
@pytest.mark.parametrize("make", ON_AXES.values(), ids=ON_AXES)
def test_a_penalty_on_other_axes_is_that_of_the_matrix_with_its_units_as_columns(make: Any, axes: Axes) -> None:
    """The matrix is put together by NumPy, entry by entry, from the numbers of the units."""
    w, gradient = (np.random.default_rng(seed).normal(size=SHAPE).astype("float32") for seed in (0, 1))
    order = np.argsort(axes.numbers, axis=None, kind="stable")

    def matrix(entries: Array) -> Array:
        return entries.reshape(-1)[order].reshape(axes.count, -1).T

    def back(found: Array) -> Array:
        entries = np.empty(w.size)
        entries[order] = found.T.reshape(-1)
        return entries.reshape(SHAPE)

    def given(entries: Array) -> Any:
        return ops.convert_to_tensor(entries.astype("float32"))

    plain = make()
    if isinstance(plain, poise.Anchored):
        plain = poise.Anchored(plain.penalty, np.full(matrix(w).shape, 0.25))
    bound = make().bind(Sides(outputs=axes))

    def close(actual: Any, expected: Array) -> None:
        np.testing.assert_allclose(array(actual), expected, rtol=1e-4, atol=1e-5)

    close(bound.value(given(w), 0.3), array(plain.value(given(matrix(w)), 0.3)))
    close(bound.gradient(given(w), 0.3), back(array(plain.gradient(given(matrix(w)), 0.3))))
    close(bound.prox(given(w), 0.7, 0.3), back(array(plain.prox(given(matrix(w)), 0.7, 0.3))))
    residual = array(plain.residual(given(matrix(w)), given(matrix(gradient)), 0.3))
    residual = back(residual) if residual.shape == matrix(w).shape else residual
    close(bound.residual(given(w), given(gradient), 0.3), residual)
    critical = plain.critical_strength(given(matrix(gradient)))
    if critical is not None:
        close(bound.critical_strength(given(gradient)), array(critical))
    if bound.metric == "diagonal":
        steps = np.random.default_rng(2).uniform(0.1, 1.0, SHAPE)
        close(
            bound.prox(given(w), given(steps), 0.3),
            back(array(plain.prox(given(matrix(w)), given(matrix(steps)), 0.3))),
        )


def test_a_factor_per_filter_goes_to_filters() -> None:
    model = fresh()
    rule = poise.Rule("*/kernel", poise.GroupLasso(0.1, factors=[1.0, 2.0, 3.0]), exclude="dense*/kernel")
    poise.PenalizedOptimizer("sgd", rule).build(model.trainable_variables)
    wrong = poise.Rule("*/kernel", poise.GroupLasso(0.1, factors=[1.0, 2.0]), exclude="dense*/kernel")
    with pytest.raises(ValueError, match="for 3 groups"):
        poise.PenalizedOptimizer("sgd", wrong).build(model.trainable_variables)


@pytest.mark.backends("tensorflow")
def test_the_model_is_found_while_tensorflow_traces_a_step() -> None:
    import tensorflow as tf

    model, optimizer = fresh(), poise.PenalizedOptimizer("sgd", GROUPS)

    @tf.function
    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    step(tf.ones((1, 4, 2)))

    assert filters_of(optimizer) == Axes.along((2, 3, 2), 1)
