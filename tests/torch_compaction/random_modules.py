"""Random networks of blocks, and the number of units that must stay, counted by experiment.

A network numbers its units without looking at poise: each block says which units it makes and which it reads. A unit
can be removed if each layer that reads it finds a constant there (zero, if the layer pads with zeros), or if changing
what the layer reads changes no output.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from module_checks import randomized
from torch import nn
from torch.nn import functional

WIDTH = 4


class Layer(NamedTuple):
    """A layer that reads units or makes them."""

    module: Any
    units: list[int]


class Record:
    """The units of a network, and the layers that make and read them."""

    def __init__(self) -> None:
        self.count = 0
        self.makers: list[Layer] = []
        self.readers: list[Layer] = []

    def made(self, module: Any, width: int) -> list[int]:
        units = list(range(self.count, self.count + width))
        self.count += width
        return self.add_maker(module, units)

    def add_maker(self, module: Any, units: list[int]) -> list[int]:
        self.makers.append(Layer(module, units))
        return units

    def read(self, module: Any, units: list[int]) -> None:
        self.readers.append(Layer(module, units))


class Family(NamedTuple):
    """Layers for one kind of data: vectors, images or sequences."""

    name: str
    shape: tuple[int, ...]
    dense: Callable[..., nn.Module]
    norm: Callable[[int], nn.Module]


def conv(read: int, made: int, draw: random.Random | None = None) -> nn.Module:
    padding, mode = draw.choice([(1, "zeros"), (1, "circular"), ("same", "zeros")]) if draw else (0, "zeros")
    layer: Any = nn.Conv2d
    bias = draw is None or draw.random() < 0.8
    return layer(read, made, 3 if draw else 1, padding=padding, padding_mode=mode, bias=bias)


def linear(read: int, made: int, draw: random.Random | None = None) -> nn.Module:
    return nn.Linear(read, made, bias=draw is None or draw.random() < 0.8)


VECTORS = Family("vectors", (5,), linear, nn.BatchNorm1d)
IMAGES = Family("images", (3, 5, 5), conv, nn.BatchNorm2d)
SEQUENCES = Family("sequences", (5, 3), linear, lambda width: nn.Identity())
AXES: dict[str, list[int]] = {"vectors": [], "images": [2, 3], "sequences": [1]}
"""The axes of the positions."""
FAMILIES = {family.name: family for family in (VECTORS, IMAGES, SEQUENCES)}


class Activation(nn.Module):
    """An activation that no unit saturates."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.number = draw.randrange(5)
        self.module = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.number == 0:
            return self.module(x)
        if self.number == 1:
            return functional.leaky_relu(x, 0.2)
        if self.number == 2:
            return x * torch.sigmoid(x)
        if self.number == 3:
            return 0.5 * x + x.abs()
        return functional.elu_(x + 0.0)


class Block(nn.Module):
    """A part of the network."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__()
        self.units = units
        """The units of the output."""


class Residual(Block):
    """x + write(activation(norm(read(x))))."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__(family, draw, units, record)
        self.read = family.dense(len(units), WIDTH, draw)
        self.norm, self.activation = family.norm(WIDTH), Activation(draw)
        self.write = family.dense(WIDTH, len(units), draw)
        record.read(self.read, units)
        inner = record.made(self.read, WIDTH)
        record.read(self.write, inner)
        record.add_maker(self.write, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.write(self.activation(self.norm(self.read(x))))


class Transition(Block):
    """norm(activation(read(x))), with dropout."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__(family, draw, units, record)
        self.read, self.norm = family.dense(len(units), WIDTH, draw), family.norm(WIDTH)
        self.activation = Activation(draw)
        record.read(self.read, units)
        self.units = record.made(self.read, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(functional.dropout(self.activation(self.read(x)), 0.5, self.training))


class Growth(Block):
    """x and activation(read(x)), one after the other."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__(family, draw, units, record)
        self.read, self.activation = family.dense(len(units), WIDTH, draw), Activation(draw)
        self.axis = 2 if family is SEQUENCES else 1
        record.read(self.read, units)
        self.units = [*units, *record.made(self.read, WIDTH)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.activation(self.read(x))], dim=self.axis)


class Gate(Block):
    """x · sigmoid(write(tanh(read(mean of x))))."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__(family, draw, units, record)
        self.axes = AXES[family.name]
        self.read, self.write = nn.Linear(len(units), WIDTH), nn.Linear(WIDTH, len(units))
        record.read(self.read, units)
        record.read(self.write, record.made(self.read, WIDTH))
        record.add_maker(self.write, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = x.mean(self.axes) if self.axes else x
        gate = torch.sigmoid(self.write(torch.tanh(self.read(squeezed))))
        for axis in self.axes:
            gate = gate.unsqueeze(axis)
        return x * gate


class Depthwise(Block):
    """A convolution of every channel, which keeps the units."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__(family, draw, units, record)
        self.conv = nn.Conv2d(len(units), len(units), 3, padding=1, groups=len(units), padding_mode="replicate")
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv(x))


class Shuffle(Block):
    """Moves axes and back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.transpose(-1, -2).contiguous()
        return y.flatten(1).view(y.shape).permute(*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)


class Recur(Block):
    """A recurrent layer."""

    def __init__(self, family: Family, draw: random.Random, units: list[int], record: Record) -> None:
        super().__init__(family, draw, units, record)
        self.layer = draw.choice([nn.GRU, nn.LSTM, nn.RNN])(len(units), WIDTH, batch_first=True)
        record.read(self.layer, units)
        self.units = record.made(self.layer, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


BLOCKS: dict[str, list[type[Block]]] = {
    "vectors": [Residual, Transition, Growth, Gate],
    "images": [Residual, Transition, Growth, Gate, Depthwise],
    "sequences": [Residual, Transition, Growth, Gate, Recur],
}


class Network(nn.Module):
    """A first layer, some blocks, and a head."""

    def __init__(self, family: Family, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.record = Record()
        self.family = family
        read = family.shape[-1] if family is SEQUENCES else family.shape[0]
        self.first = family.dense(read, WIDTH)
        units = self.record.made(self.first, WIDTH)
        self.blocks = nn.ModuleList()
        for _ in range(draw.randint(1, 4)):
            block = draw.choice(BLOCKS[family.name])(family, draw, units, self.record)
            self.blocks.append(block)
            units = block.units
        self.is_flat = draw.random() < 0.5
        positions = {"vectors": 1, "images": 25, "sequences": 5}[family.name] if self.is_flat else 1
        by_position = units * positions if family is SEQUENCES else [unit for unit in units for _ in range(positions)]
        self.head = nn.Linear(len(by_position), 2)
        self.record.read(self.head, by_position)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        if self.is_flat:
            return self.head(torch.flatten(x, 1))
        axes = AXES[self.family.name]
        return self.head(x.mean(axes) if axes else x)


def build(family: Family, seed: int) -> Network:
    """A random network, in which some units of most layers are dead. The first unit of every layer lives."""
    network = randomized(Network(family, seed))
    draw = random.Random(seed + 1)
    common = draw.sample(range(1, WIDTH), 2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_((weight.shape[0] / weight.numel()) ** 0.5 if weight.ndim > 1 else 0.5)
        for module, _ in network.record.makers:
            if draw.random() < 0.8:
                _silence(module, [unit for unit in common if draw.random() < 0.8], draw.random() < 0.4)
        for module, units in network.record.readers:
            if draw.random() < 0.8:
                positions = [place for place, unit in enumerate(units) if unit % WIDTH == common[0] and unit > WIDTH]
                _unread(module, positions)
        norms: list[Any] = [each for each in network.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
        for module in norms:
            if draw.random() < 0.5:
                module.weight[common[1]] = 0.0
    return network


def _silence(module: Any, units: list[int], has_bias: bool) -> None:
    if isinstance(module, nn.RNNBase):
        gates, weights = len(next(module.parameters())) // WIDTH, list(module.parameters())
        for weight in weights:
            weight[[gate * WIDTH + unit for gate in range(gates) for unit in units]] = 0.0
        return
    module.weight[units] = 0.0
    if module.bias is not None and not has_bias:
        module.bias[units] = 0.0


def _unread(module: Any, units: list[int]) -> None:
    weight: Any = module.weight_ih_l0 if isinstance(module, nn.RNNBase) else module.weight
    weight[:, units] = 0.0


def count_needed(network: Network, x: torch.Tensor) -> set[int]:
    """The units that have to stay: some layer reads a value that varies, and that an output depends on."""
    expected = network(x)
    needed = {unit for reader in network.record.readers for unit in _needed_by(network, reader, x, expected)}
    recurrent = [maker for maker in network.record.makers if isinstance(maker.module, nn.RNNBase)]
    return needed.union(*(_needed_by_states(network, maker, x, expected) for maker in recurrent))


def _needed_by_states(network: Network, maker: Layer, x: torch.Tensor, expected: torch.Tensor) -> set[int]:
    """The units of a recurrent layer whose states other units read."""
    weight, needed = maker.module.weight_hh_l0, set()
    for place, unit in enumerate(maker.units):
        before = weight.clone()
        weight[:, place] *= torch.arange(len(weight)) % len(maker.units) == place
        if not torch.equal(network(x), expected):
            needed.add(unit)
        weight.copy_(before)
    return needed


def _needed_by(network: Network, reader: Layer, x: torch.Tensor, expected: torch.Tensor) -> set[int]:
    values = _read_values(network, reader.module, x)
    axis = 1 if isinstance(reader.module, nn.Conv2d) else -1
    pads = (
        isinstance(reader.module, nn.Conv2d)
        and reader.module.padding_mode == "zeros"
        and reader.module.padding != (0, 0)
    )
    needed = set()
    for place, unit in enumerate(reader.units):
        channel = values.select(axis, place)
        is_constant = float(channel.max() - channel.min()) < 1e-9
        if is_constant and (not pads or float(channel.abs().max()) < 1e-9):
            continue
        changed = values.clone()
        changed.select(axis, place).add_(torch.randn(channel.shape, dtype=channel.dtype))
        if not torch.equal(_outputs_with(network, reader.module, x, changed), expected):  # activations may saturate
            needed.add(unit)
    return needed


def _read_values(network: Network, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    values: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: values.append(inputs[0].clone()))
    network(x)
    hook.remove()
    return values[0]


def _outputs_with(network: Network, module: nn.Module, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    hook = module.register_forward_pre_hook(lambda _, inputs: (values,))
    result = network(x)
    hook.remove()
    return result
