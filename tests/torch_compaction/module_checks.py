"""Modules with random weights, units of them zeroed, and the outputs before and after side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from poise.torch.compaction import compact


def net(forward: Callable[..., Any], **layers: nn.Module) -> Any:
    """A module whose forward code is a function of the module and its inputs, with random weights."""
    module = type("Net", (nn.Module,), {"forward": forward})()
    for name, layer in layers.items():
        setattr(module, name, layer)
    return randomized(module)


def randomized(module: nn.Module) -> Any:
    """The module with random weights, none of them near zero, and random statistics; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in [*module.parameters(), *module.buffers()]:
            if weight.is_floating_point():
                normal = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight.copy_(torch.sign(normal) * (0.2 + 0.5 * normal.abs()))
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_()
    return module.eval()


@torch.no_grad()
def silence(layer: Any, units: Sequence[int], bias: float | None = None) -> None:
    """These units get no incoming weights, and a bias of 0 or of this value."""
    weight = layer.weight
    is_transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Embedding)
    (weight.transpose(0, 1) if is_transposed else weight)[[*units]] = 0.0
    if getattr(layer, "bias", None) is not None:
        layer.bias[[*units]] = bias or 0.0


@torch.no_grad()
def unread(layer: Any, units: Sequence[int]) -> None:
    """The layer reads these units with zeros."""
    is_transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    (layer.weight if is_transposed else layer.weight.transpose(0, 1))[[*units]] = 0.0


def outputs(module: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """All tensors among the outputs."""
    with torch.no_grad():
        return _flatten(module(*inputs))


def _flatten(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in _flatten(part)]


def assert_same(module: nn.Module, smaller: nn.Module, *inputs: torch.Tensor) -> None:
    """No output differs by more than 1e-5 of the largest."""
    for expected, actual in zip(outputs(module, *inputs), outputs(smaller, *inputs), strict=True):
        assert expected.shape == actual.shape
        assert torch.isfinite(expected).all()
        limit = 1e-5 if expected.dtype == torch.float32 else 1e-12
        scale = max(float(expected.abs().max()), 1e-30)
        torch.testing.assert_close(actual, expected, rtol=0.0, atol=limit * scale)


def compacted(module: nn.Module, *inputs: torch.Tensor, **options: Any) -> Any:
    """The smaller module, which has the same outputs on other inputs with another batch size."""
    examples = inputs if len(inputs) > 1 else next(iter(inputs))
    smaller = compact(module, examples, **options)
    others: list[torch.Tensor] = []
    for tensor in inputs:
        repeated = torch.cat([tensor, tensor.narrow(0, 0, 1)])
        noise = torch.rand(repeated.shape, generator=torch.Generator().manual_seed(1))
        others.append(repeated + noise.to(repeated.dtype) if repeated.is_floating_point() else repeated)
    assert_same(module, smaller, *others)
    return smaller


def size(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(weight.numel() for weight in module.parameters())
