"""Forward code of all kinds: functions, methods, views, sizes, and operations in place."""

import math

import pytest
import torch
from module_checks import compacted, net, silence, unread
from torch import nn
from torch.nn import functional

from poise.torch.compaction import dead_units, elementwise

IMAGE = torch.linspace(-1.0, 1.0, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6).sin()
ROWS = torch.linspace(-1.0, 1.0, 4 * 3).reshape(4, 3).cos()
STEPS = torch.linspace(-1.0, 1.0, 2 * 5 * 3).reshape(2, 5, 3).sin()


def image_net(function, positions=36):
    """A convolution with 4 channels, of which two are dead, and a head that reads what the function makes of them."""
    layers = {"first": nn.Conv2d(3, 4, 1), "head": nn.Linear(4 * positions, 2)}
    model = net(lambda self, x: self.head(function(self.first(x))), **layers)
    silence(model.first, [1, 2], bias=0.3)
    return model


def row_net(function, reads=4):
    """A linear layer with 4 units, of which unit 1 is constant, and a head that reads what the function makes of them."""
    model = net(lambda self, x: self.head(function(self.first(x))), first=nn.Linear(3, 4), head=nn.Linear(reads, 2))
    silence(model.first, [1], bias=0.3)
    return model


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: torch.flatten(x, 1),
        lambda x: x.flatten(start_dim=1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(len(x), x.size(1) * x.size(2) * x.size(-1)),
        lambda x: x.view(x.shape[0], x[0].numel()),
        lambda x: x.permute(0, 2, 3, 1).flatten(1),
        lambda x: x.reshape(*x.shape[:2], -1).transpose(1, 2).flatten(1),
        lambda x: torch.cat(x.unbind(2), dim=2).flatten(1),
        lambda x: torch.cat([x[..., :2], x[..., 2:]], dim=-1).reshape(x.shape[0], -1),
        lambda x: x.unsqueeze(2).squeeze(2).flip(3).roll(1, dims=2).flatten(1),
        lambda x: functional.pixel_unshuffle(x, 2).flatten(1),
        lambda x: functional.pixel_shuffle(functional.pixel_unshuffle(x, 3), 3).flatten(1),
        lambda x: torch.movedim(x, 1, -1).contiguous().view(x.size(0), -1),
        lambda x: x.mT.flatten(1),
    ],
)
def test_code_that_adapts_to_the_sizes_loses_units(flatten) -> None:
    model = image_net(flatten)
    smaller = compacted(model, IMAGE)
    assert (smaller.first.out_channels, smaller.head.in_features) == (2, 72)


@pytest.mark.parametrize(
    ("flatten", "name"),
    [
        (lambda x: x.view(-1, 144), "'view' (view)"),
        (lambda x: x.reshape(x.shape[0], 4, 36).flatten(1), "'reshape' (reshape)"),
        (lambda x: x.expand(-1, 4, -1, -1).flatten(1), "'expand' (expand)"),
    ],
)
def test_code_with_fixed_sizes_keeps_units(flatten, name) -> None:
    model = image_net(flatten)
    smaller = compacted(model, IMAGE)
    assert smaller.first.out_channels == 4
    reason = f"all stay: {name} works only with the original number of units"
    assert dead_units(model, IMAGE)["why"][0] == reason


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x / math.sqrt(x.shape[1]),
        lambda x: x * x.size(-1) ** -0.5,
        lambda x: x + torch.zeros(x.shape[1]),
        lambda x: x + torch.arange(4),
        lambda x: functional.layer_norm(x, (4,)),
        lambda x: functional.layer_norm(x, x.shape[1:]),
        lambda x: x @ torch.ones(4, 4),
        lambda x: torch.einsum("bi->b", x)[:, None] * x,
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x - x.mean(),
        lambda x: functional.normalize(x),
        lambda x: x.softmax(-1),
        lambda x: x.cumsum(dim=1),
        lambda x: x.sort(dim=1)[0],
        lambda x: x.roll(x.shape[1] // 2, dims=1),
        lambda x: functional.dropout(x, 0.0),  # on in every mode
    ],
)
def test_code_that_depends_on_all_units_keeps_them(function) -> None:
    smaller = compacted(row_net(function), ROWS)
    assert smaller.first.out_features == 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2.0 * x.relu() - 1.0,
        lambda x: functional.gelu(x, approximate="tanh").clamp(-1.0, max=0.5),
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: x.masked_fill(x < 0, -1.0),
        lambda x: (x > 0).float() * x.abs() ** 0.5,
        lambda x: (x + 2.0) / (1.5 + x.tanh()).square(),
        lambda x: torch.add(x, x.sigmoid(), alpha=0.5),
        lambda x: torch.maximum(x, -x) + x.exp().log1p() // 1,
        lambda x: 1.0 - x,
        lambda x: x.to(torch.float64).float(),
        lambda x: functional.dropout(functional.silu(x), training=False).detach(),
        lambda x: torch.cat([x, x], dim=1).flip(1)[:, x.shape[1] :],
        lambda x: x.clone().contiguous(),
        lambda x: x[:, None].expand(-1, 3, -1).amax(1),
        lambda x: x.unsqueeze(1).repeat(1, 2, 1).mean(dim=1),
    ],
)
def test_elementwise_code_loses_units(function) -> None:
    smaller = compacted(row_net(function), ROWS)
    assert smaller.first.out_features == 3


ARGUMENTS = {"threshold": (0.5, 0.2), "clamp": (0.4, 0.6), "clip": (0.4, 0.6), "clamp_min": (0.5,), "clamp_max": (0.5,)}
ARGUMENTS |= {"to": (torch.float64,), "type": (torch.float64,)}


@pytest.mark.parametrize("name", elementwise.FUNCTIONS)
def test_every_function_in_the_table_is_elementwise(name) -> None:
    """Its arguments are in (0, 1), where all of them are finite."""
    arguments = ARGUMENTS.get(name, ())
    functions = [getattr(holder, name) for holder in (torch, functional) if callable(getattr(holder, name, None))]
    if hasattr(torch.Tensor, name):
        functions.append(lambda x, *others: getattr(x, name)(*others))
    assert functions
    for function in functions:
        model = row_net(lambda x, function=function: function(x.sigmoid(), *arguments).float())
        assert compacted(model, ROWS).first.out_features == 3


def test_a_sum_over_other_axes_keeps_zeros_only() -> None:
    model = row_net(lambda x: x[:, None].expand(-1, 3, -1).sum(1))
    assert compacted(model, ROWS).first.out_features == 4
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 3


def test_a_slice_works_if_the_units_before_it_stay() -> None:
    model = net(lambda self, x: self.head(self.first(x)[:, :3]), first=nn.Linear(3, 5), head=nn.Linear(3, 2))
    assert compacted(model, ROWS).first.out_features == 3
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 2

    def forward(self, x):
        x = self.first(x)
        return self.head(x[:, :3]), x[:, 3:]

    model = net(forward, first=nn.Linear(3, 5), head=nn.Linear(3, 2))
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 5


def test_every_second_unit() -> None:
    model = net(lambda self, x: self.head(self.first(x)[:, ::2]), first=nn.Linear(3, 8), head=nn.Linear(4, 2))
    unread(model.head, [0])  # units 0, 1, 3, 5, 7 are dead, and without them others are the second ones
    assert compacted(model, ROWS).first.out_features == 8


def test_halves_that_are_multiplied_are_joined() -> None:
    def forward(self, x):
        a, b = self.first(x).chunk(2, dim=-1)
        return self.head(a * torch.sigmoid(b))

    model = net(forward, first=nn.Linear(3, 8), head=nn.Linear(4, 2))
    unread(model.head, [1])
    silence(model.first, [2, 6], bias=0.3)
    silence(model.first, [3], bias=0.3)  # its gate varies

    smaller = compacted(model, ROWS)

    assert (smaller.first.out_features, smaller.head.in_features) == (4, 2)


def test_a_channel_shuffle_joins_the_channels_of_all_groups() -> None:
    def forward(self, x):
        x = self.first(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        return self.last(x)

    model = net(forward, first=nn.Conv2d(3, 6, 1), last=nn.Conv2d(6, 2, 1))
    silence(model.first, [1, 4], bias=0.2)
    assert compacted(model, IMAGE).first.out_channels == 4
    silence(model.first, [0], bias=0.2)
    assert compacted(model, IMAGE).first.out_channels == 4


def test_heads_of_attention_in_plain_code_stay_and_the_rest_goes() -> None:
    def forward(self, x):
        batch, steps, _ = x.shape
        q, k, v = (y.view(batch, steps, 2, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, steps, -1)
        return self.down(functional.gelu(self.up(x + self.out(y))))

    layers = {"qkv": nn.Linear(3, 12), "out": nn.Linear(4, 3), "up": nn.Linear(3, 8), "down": nn.Linear(8, 3)}
    model = net(forward, **layers)
    silence(model.up, [1, 2, 7], bias=0.4)
    silence(model.qkv, [0, 4, 8])

    smaller = compacted(model, STEPS)

    assert (smaller.qkv.out_features, smaller.up.out_features) == (12, 5)


def test_squeeze_and_excitation() -> None:
    def forward(self, x):
        x = self.first(x)
        gate = self.up(functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.last(
            functional.interpolate(functional.pad(x * gate, (1, 1, 1, 1), mode="reflect"), scale_factor=2.0)
        )

    layers = {
        "first": nn.Conv2d(3, 6, 3),
        "down": nn.Conv2d(6, 4, 1),
        "up": nn.Conv2d(4, 6, 1),
        "last": nn.Conv2d(6, 2, 3),
    }
    model = net(forward, **layers)
    silence(model.first, [1])
    silence(model.down, [0, 2], bias=0.2)
    unread(model.last, [5])
    unread(model.down, [5])

    smaller = compacted(model, IMAGE)

    assert (smaller.first.out_channels, smaller.down.out_channels, smaller.up.out_channels) == (4, 2, 4)


def test_shortcuts_that_pad_channels_keep_them() -> None:
    def forward(self, x):
        x = self.first(x)
        return self.last(functional.pad(x, (0, 0, 0, 0, 1, 1)))

    model = net(forward, first=nn.Conv2d(3, 4, 1), last=nn.Conv2d(6, 2, 1))
    silence(model.first, [1])
    assert compacted(model, IMAGE).first.out_channels == 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.relu(x, inplace=True),
        lambda x: functional.relu_(x),
        lambda x: x.relu_(),
        lambda x: torch.relu_(x),
        lambda x: x.mul_(2.0),
    ],
)
def test_later_code_sees_what_an_operation_in_place_did(function) -> None:
    def forward(self, x):
        x = self.first(x)
        same = self.same(x)
        function(x)
        return self.head(x + same)

    model = net(forward, first=nn.Linear(3, 4), same=nn.Identity(), head=nn.Linear(4, 2))
    silence(model.first, [1], bias=-0.3)
    assert compacted(model, ROWS).first.out_features == 3


def test_operators_in_place_change_every_name_of_a_tensor() -> None:
    def forward(self, x):
        x = self.first(x)
        before = x
        x += self.second(x)
        count = x.shape[0]
        count *= 2
        x -= 0.5
        return self.head(before * before / count)

    model = net(forward, first=nn.Linear(3, 4), second=nn.Linear(4, 4), head=nn.Linear(4, 2))
    silence(model.first, [1], bias=0.5)
    assert compacted(model, ROWS).first.out_features == 4  # the second layer feeds it
    silence(model.second, [1], bias=0.2)
    assert compacted(model, ROWS).first.out_features == 4  # the constant depends on the number of rows
    silence(model.second, [1])
    silence(model.first, [1], bias=0.5)
    assert compacted(model, ROWS).second.out_features == 4


def test_a_constant_that_depends_on_the_number_of_rows_stays() -> None:
    def forward(self, x):
        return self.head(self.first(x) / x.size(0) + self.first(x) * 2.0)

    model = net(forward, first=nn.Linear(3, 4), head=nn.Linear(4, 2))
    silence(model.first, [1], bias=0.5)
    assert compacted(model, ROWS).first.out_features == 4
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 4
    unread(model.head, [2])
    assert compacted(model, ROWS).first.out_features == 3


def test_a_constant_that_hides_its_dependence_on_the_number_of_rows_is_an_error() -> None:
    model = net(
        lambda self, x: self.head(self.first(x) / float(x.size(0))), first=nn.Linear(3, 4), head=nn.Linear(4, 2)
    )
    silence(model.first, [1], bias=0.5)
    with pytest.raises(RuntimeError, match=r"^Internal error: the outputs of the smaller module differ by"):
        compacted(model, ROWS)


def test_operators_in_place() -> None:
    def forward(self, x):
        x = self.relu(self.first(x))
        x += self.second(x)
        x *= 2.0
        return self.head(x)

    layers = {
        "first": nn.Linear(3, 4),
        "second": nn.Linear(4, 4),
        "head": nn.Linear(4, 2),
        "relu": nn.ReLU(inplace=True),
    }
    model = net(forward, **layers)
    silence(model.first, [1], bias=0.5)
    silence(model.second, [1], bias=0.2)
    assert compacted(model, ROWS).first.out_features == 3


def test_nested_outputs_and_several_inputs() -> None:
    def forward(self, x, y, scale=1.0, mask=None):
        if mask is not None:
            x = x * mask
        z = torch.cat([self.a(x), self.b(y)], dim=1) * scale
        return {"first": self.head(z), "others": [z.mean(1), (self.a(x)[:, :1],)]}

    model = net(forward, a=nn.Linear(3, 4), b=nn.Linear(2, 4), head=nn.Linear(8, 2))
    unread(model.head, [1, 6])
    smaller = compacted(model, ROWS, ROWS[:, :2])
    assert smaller.b.out_features == 4  # all are in the mean

    def without_mean(self, x, y, scale=1.0, mask=None):
        z = torch.cat([self.a(x), self.b(y)], dim=1) * scale
        return {"first": self.head(z), "others": [(z,)[0][:, :1]]}

    model = net(without_mean, a=nn.Linear(3, 4), b=nn.Linear(2, 4), head=nn.Linear(8, 2))
    unread(model.head, [1, 6])
    smaller = compacted(model, ROWS, ROWS[:, :2])
    assert (smaller.a.out_features, smaller.b.out_features) == (3, 3)


def test_reasons_name_the_tensor_that_units_meet() -> None:
    model = net(lambda self, x: self.head(self.first(x) + x), first=nn.Linear(3, 3), head=nn.Linear(3, 2))
    assert dead_units(model, ROWS)["why"][0] == "all stay: an input of the model"
    model = net(lambda self, x: self.head(self.first(x) + x.relu()), first=nn.Linear(3, 3), head=nn.Linear(3, 2))
    assert dead_units(model, ROWS)["why"][0] == "all stay: an input of the model"
    model = net(lambda self, x: self.head(self.first(x) + x.sort()[0]), first=nn.Linear(3, 3), head=nn.Linear(3, 2))
    assert dead_units(model, ROWS)["why"][0] == "all stay: an input of the model"
    model = row_net(lambda x: x + torch.ones(4))
    assert "all stay: combined with '_tensor_constant0' in the forward code" in dead_units(model, ROWS)["why"][0]


def test_parameters_of_the_module_itself_keep_what_they_meet() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
            self.scale, self.factor = nn.Parameter(torch.ones(4)), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.head(torch.relu(self.first(x)) * self.scale * self.factor)

    model = Scaled()
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 4
    assert dead_units(model, ROWS)["why"][0] == "all stay: combined with 'scale' in the forward code"
    model.scale = nn.Parameter(torch.tensor([1.5]))
    assert compacted(model, ROWS).first.out_features == 3


def test_code_in_an_assert_of_torch_keeps_units() -> None:
    def forward(self, x):
        x = self.first(x)
        torch._assert(x.shape[1] == 4, "four units")
        return self.head(x)

    model = net(forward, first=nn.Linear(3, 4), head=nn.Linear(4, 2))
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 4


def test_tensors_of_sizes_that_the_code_computes() -> None:
    def forward(self, x):
        x = self.first(x)
        noise = torch.zeros(x.size(0), 1) + torch.arange(x.shape[0])[:, None] * torch.ones(1, x.size(2))[:, :1]
        return self.head(x + noise[:, None])

    model = net(forward, first=nn.Linear(3, 4), head=nn.Linear(4, 2))
    silence(model.first, [1])
    unread(model.head, [3])
    smaller = compacted(model, STEPS)  # unit 1 is 0, but something is added to it
    assert smaller.first.out_features == 4

    def batch_only(self, x):
        x = self.first(x)
        return self.head(x + torch.arange(x.shape[0])[:, None, None])

    model = net(batch_only, first=nn.Linear(3, 4), head=nn.Linear(4, 2))
    unread(model.head, [3])
    assert compacted(model, STEPS).first.out_features == 3
    assert torch.zeros(2).shape == (2,)


def test_values_that_leave_the_graph_keep_what_they_depend_on() -> None:
    model = row_net(lambda x: x * x.sum().item())
    assert compacted(model, ROWS).first.out_features == 4


def test_sizes_of_one_tensor_in_the_view_of_another() -> None:
    def forward(self, x):
        y, z = self.first(x), self.second(x)
        return self.head(y), z.view(z.shape[0], y.shape[1], -1)

    model = net(forward, first=nn.Linear(3, 4), second=nn.Linear(3, 8), head=nn.Linear(4, 2))
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 4
    assert dead_units(model, ROWS)["why"][0] == "all stay: 'view' in the forward code depends on their number"


def test_control_flow_on_sizes() -> None:
    def forward(self, x):
        assert x.shape[-1] == 3, "three features"
        x = self.first(x) if x.ndim == 2 else self.first(x.mean(1))
        for number in range(len(x.shape)):
            x = x + number
        parts = [part * 2.0 for part in x.chunk(2, dim=1)]
        batch = int(x.size(0))
        return self.head(torch.cat(parts, dim=1)).reshape(batch, *x.shape[2:], -1)

    model = net(forward, first=nn.Linear(3, 6), head=nn.Linear(6, 2))
    silence(model.first, [1, 4])
    smaller = compacted(model, ROWS)
    assert smaller.first.out_features == 4


@pytest.mark.parametrize(
    "code",
    [
        lambda x: x if x.shape[1] == 4 else x + 1.0,
        lambda x: x * float(x.shape[1]),
        lambda x: torch.stack([x[:, number] for number in range(x.size(1))], dim=1),
        lambda x: torch.stack(list(x.unbind(1)), dim=1),
        lambda x: x * math.sqrt(x.shape[-1]),
        lambda x: x * len(x[0]),
    ],
)
def test_control_flow_on_the_number_of_units_keeps_them(code) -> None:
    assert compacted(row_net(code), ROWS).first.out_features == 4
