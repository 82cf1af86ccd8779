"""What each kind of layer loses, and that the outputs stay the same."""

from typing import Any

import pytest
import torch
from module_checks import assert_same, compacted, net, randomized, silence, size, unread
from torch import nn
from torch.nn import functional

from poise.torch.compaction import compact, dead_units

IMAGE = torch.linspace(-1.0, 1.0, 2 * 3 * 7 * 7).reshape(2, 3, 7, 7).sin()
ROWS = torch.linspace(-1.0, 1.0, 4 * 3).reshape(4, 3).cos()
STEPS = torch.linspace(-1.0, 1.0, 2 * 5 * 3).reshape(2, 5, 3).sin()


def chain(*layers: nn.Module) -> Any:
    return randomized(nn.Sequential(*layers))


def test_a_constant_unit_becomes_a_part_of_the_next_bias() -> None:
    model = chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    silence(model[0], [1], bias=0.5)
    unread(model[2], [2])

    smaller = compacted(model, ROWS)

    assert smaller[0].out_features == smaller[0].weight.shape[0] == 2
    torch.testing.assert_close(smaller[2].bias, model[2].bias + 0.5 * model[2].weight[:, 1])


def test_a_linear_layer_without_bias_gets_one_for_constants_only() -> None:
    model = chain(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2, bias=False))
    silence(model[0], [1])  # sigmoid(0) = 0.5
    assert compacted(model, ROWS)[2].bias is not None

    model[1] = nn.Tanh()
    smaller = compacted(model, ROWS)
    assert smaller[2].bias is None
    assert smaller[0].out_features == 3


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        ({"padding": 1}, 0),
        ({"padding": "same"}, 0),
        ({"padding": "valid"}, 2),
        ({}, 2),
        ({"padding": 1, "padding_mode": "circular"}, 2),
        ({"padding": 1, "padding_mode": "reflect"}, 2),
        ({"padding": 2, "padding_mode": "replicate", "bias": False}, 2),
        ({"stride": 2, "dilation": 2}, 2),
    ],
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_constant_that_is_not_zero_stays_before_zero_padding(rank, options, removed) -> None:
    convolution = getattr(nn, f"Conv{rank}d")
    model = chain(convolution(3, 4, 1), convolution(4, 2, 3, **options))
    silence(model[0], [1, 2], bias=0.7)
    x = torch.rand((2, 3, *[6] * rank))

    assert compacted(model, x)[0].out_channels == 4 - removed

    silence(model[0], [1, 2])
    assert compacted(model, x)[0].out_channels == 2


def test_a_kernel_of_size_one_can_pad_too() -> None:
    model = chain(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, padding=1))
    silence(model[0], [1], bias=0.7)
    assert compacted(model, IMAGE)[0].out_channels == 4


def test_unbatched_images_keep_their_channel_axis() -> None:
    model = chain(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 2, 1))
    silence(model[0], [1])
    smaller = compact(model, IMAGE[0])
    assert smaller[0].out_channels == 3
    assert_same(model, smaller, IMAGE[1])


def test_whole_groups_of_a_convolution_are_removed() -> None:
    model = chain(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.ReLU(), nn.Conv2d(9, 2, 1))
    silence(model[2], [3, 4, 5, 6], bias=0.3)

    smaller = compacted(model, IMAGE)

    assert (smaller[0].out_channels, smaller[2].groups, smaller[4].in_channels) == (4, 2, 6)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_convolution_loses_channels(multiplier) -> None:
    model = chain(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4 * multiplier, 3, groups=4), nn.Conv2d(4 * multiplier, 2, 1))
    unread(model[2], range(multiplier, 2 * multiplier))

    smaller = compacted(model, IMAGE)

    assert (smaller[0].out_channels, smaller[1].groups, smaller[2].in_channels) == (3, 3, 3 * multiplier)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_transposed_convolution_loses_both_kinds_of_units(rank) -> None:
    transposed = getattr(nn, f"ConvTranspose{rank}d")
    model = chain(transposed(3, 4, 3, stride=2), nn.ReLU(), transposed(4, 5, 1), transposed(5, 2, 2))
    silence(model[0], [0], bias=0.4)
    silence(model[2], [1, 2])

    smaller = compacted(model, torch.rand((2, 3, *[4] * rank)))

    assert [layer.out_channels for layer in (smaller[0], smaller[2], smaller[3])] == [3, 3, 2]


def test_groups_of_a_transposed_convolution_stay() -> None:
    model = chain(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1))
    silence(model[0], [0, 1])
    assert compacted(model, IMAGE)[0].out_channels == 4
    assert "'1' (ConvTranspose2d), which poise.torch.compact does not support" in dead_units(model, IMAGE)["why"][0]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.InstanceNorm2d(4),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
    ids=repr,
)
def test_units_are_normalized_separately(norm) -> None:
    model = chain(nn.Conv2d(3, 4, 1), norm, nn.ReLU(), nn.Conv2d(4, 2, 3))
    silence(model[0], [1], bias=0.7)
    unread(model[3], [3])

    smaller = compacted(model, IMAGE)

    assert smaller[0].out_channels == smaller[1].num_features == 2


def test_a_scale_of_zero_makes_a_constant() -> None:
    model = chain(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[2] = 0.0
    assert compacted(model, ROWS)[0].out_features == 3


def test_group_normalization_loses_whole_groups() -> None:
    model = chain(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 2, 1))
    unread(model[2], [0, 1, 2])

    smaller = compacted(model, IMAGE)

    assert (smaller[0].out_channels, smaller[1].num_groups, smaller[1].num_channels) == (4, 2, 4)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.RMSNorm(4)], ids=repr)
def test_layer_normalization_keeps_what_it_reads(norm) -> None:
    model = chain(nn.Linear(3, 4), norm, nn.Linear(4, 4), nn.Linear(4, 2))
    silence(model[0], [1])
    silence(model[2], [1])

    smaller = compacted(model, ROWS)

    assert (smaller[0].out_features, smaller[2].out_features) == (4, 3)
    assert "computes statistics over all of them" in dead_units(model, ROWS)["why"][0]


def test_layer_normalization_along_other_axes_does_not() -> None:
    model = chain(nn.Conv2d(3, 4, 1), nn.LayerNorm([7, 7]), nn.Conv2d(4, 2, 1))
    unread(model[2], [1])
    assert compacted(model, IMAGE)[0].out_channels == 3
    model[1] = randomized(nn.LayerNorm([4, 7, 7]))
    assert compacted(model, IMAGE)[0].out_channels == 4


@pytest.mark.parametrize(
    ("layer", "removed"),
    [
        (nn.MaxPool2d(3, 2, 1), True),
        (nn.AvgPool2d(3, 2, 1), False),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), True),
        (nn.AvgPool2d(3, 2, ceil_mode=True), True),
        (nn.AvgPool2d(2, divisor_override=3), False),
        (nn.AdaptiveAvgPool2d(2), True),
        (nn.AdaptiveMaxPool2d((1, 3)), True),
        (nn.Upsample(scale_factor=2, mode="bilinear"), True),
        (nn.ZeroPad2d(1), False),
        (nn.ConstantPad2d(1, 0.75), True),
        (nn.ReflectionPad2d((1, 0, 2, 1)), True),
        (nn.CircularPad2d(1), True),
        (nn.Dropout2d(), True),
        (nn.Softmax(dim=-1), False),
        (nn.LPPool2d(2, 2), False),
    ],
    ids=repr,
)
def test_a_constant_channel_passes(layer, removed) -> None:
    model = chain(nn.Conv2d(3, 4, 1), layer, nn.Conv2d(4, 2, 1))
    silence(model[0], [1], bias=0.75)
    assert compacted(model, IMAGE)[0].out_channels == 4 - removed


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.SiLU(), nn.Mish()),
        *(nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Hardtanh(), nn.Hardsigmoid(), nn.Hardswish(), nn.Hardshrink()),
        *(nn.Softshrink(), nn.Tanhshrink(), nn.Softplus(), nn.Softsign(), nn.Threshold(0.1, 0.3), nn.PReLU()),
        *(nn.PReLU(4), nn.RReLU(), nn.Identity(), nn.Dropout()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bias", [7.5, -0.4])
def test_an_activation_maps_constants(activation, bias) -> None:
    model = chain(nn.Linear(3, 4), activation, nn.Linear(4, 2))
    silence(model[0], [1], bias=bias)
    assert compacted(model, ROWS)[0].out_features == 3


@pytest.mark.parametrize("function", [nn.Softmax(dim=1), nn.LogSoftmax(dim=-1), nn.GLU()], ids=repr)
def test_an_activation_that_mixes_units_keeps_them(function) -> None:
    model = chain(nn.Linear(3, 4), function, nn.Linear(2 if isinstance(function, nn.GLU) else 4, 2))
    silence(model[0], [1])
    assert compacted(model, ROWS)[0].out_features == 4


def test_an_embedding_loses_columns() -> None:
    model = chain(nn.Embedding(9, 5, padding_idx=0), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[:, 1] = 0.7
    unread(model[1], [3])
    x = torch.arange(6).reshape(2, 3)

    smaller = compacted(model, x)

    assert smaller[0].embedding_dim == 3
    assert dead_units(model, x)["why"][0] == "1 constant; 1 not read"


def test_an_embedding_that_rescales_its_rows_stays() -> None:
    model = chain(nn.Embedding(9, 5, max_norm=1.0), nn.Linear(5, 2))
    unread(model[1], [3])
    assert compacted(model, torch.arange(6).reshape(2, 3))[0].embedding_dim == 5


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}], ids=repr)
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_lose_units(kind, options) -> None:
    layer = kind(4, 5, batch_first=True, **options)
    directions = 2 if layer.bidirectional else 1
    model = net(
        lambda self, x: self.head(self.recurrent(self.first(x))[0][:, -1]),
        **{"first": nn.Linear(3, 4), "recurrent": layer, "head": nn.Linear(5 * directions, 2)},
    )
    gates = layer.weight_hh_l0.shape[0] // 5
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            weight[[gate * 5 + 1 for gate in range(gates)]] = 0.0  # unit 1 keeps its initial state
            if "weight_hh" in name:
                weight[:, 3] = 0.0  # no unit reads unit 3
        if layer.num_layers == 2:
            layer.weight_ih_l1[:, 3] = 0.0
    unread(model.head, [3, *([8] if directions == 2 else [])])
    silence(model.first, [2], bias=0.6)

    smaller = compacted(model, STEPS)

    assert smaller.recurrent.hidden_size == 3
    assert smaller.first.out_features == (4 if options == {"bias": False} else 3)


def test_the_states_of_a_recurrent_layer_are_units_too() -> None:
    def forward(self, x):
        _, (hidden, cell) = self.recurrent(self.first(x))
        return self.head(torch.cat([hidden[-1], cell[0]], dim=1))

    layers = {"first": nn.Linear(3, 3), "recurrent": nn.LSTM(3, 4, batch_first=True), "head": nn.Linear(8, 2)}
    model = net(forward, **layers)
    unread(model.head, [1, 2, 5])
    with torch.no_grad():
        model.recurrent.weight_hh_l0[:, [1, 2]] = 0.0
    smaller = compacted(model, STEPS)
    assert (smaller.recurrent.hidden_size, smaller.first.out_features) == (3, 3)


def test_a_recurrent_layer_with_an_initial_state_stays() -> None:
    model = net(
        lambda self, x: self.head(self.recurrent(x, torch.ones(1, x.shape[0], 4))[0]),
        **{"recurrent": nn.GRU(3, 4, batch_first=True), "head": nn.Linear(4, 2)},
    )
    unread(model.head, [1])
    with torch.no_grad():
        model.recurrent.weight_hh_l0[:, 1] = 0.0
    assert compacted(model, STEPS).recurrent.hidden_size == 4


def test_attention_keeps_what_it_reads_and_makes() -> None:
    def forward(self, x):
        y = self.first(x)
        return self.head(torch.relu(self.hidden(y + self.attention(y, y, y, need_weights=False)[0])))

    model = net(
        forward,
        **{"first": nn.Linear(3, 4), "attention": nn.MultiheadAttention(4, 2, batch_first=True)},
        **{"hidden": nn.Linear(4, 6), "head": nn.Linear(6, 2)},
    )
    silence(model.first, [1])
    silence(model.hidden, [0, 5], bias=0.2)

    smaller = compacted(model, STEPS)

    assert (smaller.first.out_features, smaller.hidden.out_features) == (4, 4)
    assert "'attention' (MultiheadAttention) uses all of them" in dead_units(model, STEPS)["why"][0]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", nn.Softmax(dim=-1)], ids=str)
def test_the_feed_forward_part_of_a_transformer_loses_units(norm_first, bias, activation) -> None:
    options = {"batch_first": True, "norm_first": norm_first, "bias": bias, "activation": activation}
    layer = nn.TransformerEncoderLayer(4, 2, 6, **options)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = chain(nn.Linear(3, 4), encoder, nn.Linear(4, 2))
    silence(encoder.layers[0].linear1, [0, 5], bias=0.2)
    unread(encoder.layers[1].linear2, [2])

    smaller = compacted(model, STEPS)

    sizes = [block.linear1.out_features for block in smaller[1].layers]
    assert sizes == ([4, 5] if isinstance(activation, str) else [6, 6])


def test_a_transformer_with_two_inputs_loses_units() -> None:
    model = net(
        lambda self, x, y: self.transformer(x, y),
        **{"transformer": nn.Transformer(4, 2, 1, 1, 6, batch_first=True)},
    )
    unread(model.transformer.encoder.layers[0].linear2, [2])
    silence(model.transformer.decoder.layers[0].linear1, [2, 3])
    x = torch.rand((2, 5, 4))

    smaller = compacted(model, x, x[:, :3])

    assert size(smaller) == size(model) - 3 * 9


def test_a_residual_sum_joins_units() -> None:
    def forward(self, x):
        x = functional.relu(self.stem(x))
        for block in self.blocks:
            x = functional.relu(x + block(x))
        return self.head(x.mean((2, 3)))

    def block() -> nn.Module:
        layers = (
            nn.Conv2d(6, 5, 3, padding=1, bias=False),
            nn.BatchNorm2d(5),
            nn.ReLU(True),
            nn.Conv2d(5, 6, 3, padding=1),
        )
        return nn.Sequential(*layers, nn.BatchNorm2d(6))

    model = net(forward, stem=nn.Conv2d(3, 6, 3), blocks=nn.ModuleList([block(), block()]), head=nn.Linear(6, 2))
    silence(model.stem, [1, 4])
    for each in model.blocks:
        silence(each[4], [1, 4])
        silence(each[1], [0])
    with torch.no_grad():
        model.blocks[1][4].bias[4] = 0.3  # unit 4 is constant in the end, and the head absorbs it

    smaller = compacted(model, IMAGE)

    assert (smaller.stem.out_channels, smaller.head.in_features) == (4, 4)
    assert [block[0].out_channels for block in smaller.blocks] == [4, 4]


def test_shared_layers_and_multiple() -> None:
    def forward(self, x):
        return self.head(self.shared(self.shared(x)))

    model = net(forward, shared=nn.Linear(3, 3), head=nn.Linear(3, 2))
    unread(model.head, [1])
    assert compacted(model, ROWS).shared.out_features == 3  # the input of the model is joined with its output

    model = chain(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    silence(model[0], [1, 2, 3])
    assert compacted(model, ROWS, multiple=4)[0].out_features == 8
    assert compacted(model, ROWS, multiple=3)[0].out_features == 6


def test_a_layer_that_is_called_twice_folds_a_constant_that_is_the_same_in_both_calls() -> None:
    def forward(self, x):
        y, z = torch.sigmoid(self.a(x)), torch.sigmoid(self.b(x))
        return self.shared(y) * self.shared(z)

    model = net(forward, a=nn.Linear(3, 4), b=nn.Linear(3, 4), shared=nn.Linear(4, 2))
    silence(model.a, [1, 2], bias=0.5)
    silence(model.b, [1, 2], bias=0.5)
    with torch.no_grad():
        model.b.bias[2] = 0.6
    smaller = compacted(model, ROWS)
    assert (smaller.a.out_features, smaller.b.out_features, smaller.shared.in_features) == (3, 3, 3)


def test_at_least_one_unit_stays() -> None:
    model = chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    silence(model[0], range(4), bias=0.5)
    assert compacted(model, ROWS)[0].out_features == 1


def test_tolerance_counts_small_weights_as_zero() -> None:
    model = chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 1e-4
    assert compacted(model, ROWS)[0].out_features == 4
    smaller = compact(model, ROWS, tolerance=1e-3)
    assert smaller[0].out_features == 3
    torch.testing.assert_close(smaller(ROWS), model(ROWS), rtol=0.0, atol=1e-3)
