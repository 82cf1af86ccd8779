"""The optimizers that `poise.torch.penalize` supports with a proximal update, by name."""

from collections.abc import Callable, Iterable

import torch
from torch import optim

Make = Callable[[Iterable[torch.nn.Parameter], float], optim.Optimizer]

OPTIMIZERS: dict[str, tuple[Make, float]] = {
    "SGD": (lambda p, lr: optim.SGD(p, lr), 0.1),
    "SGD momentum": (lambda p, lr: optim.SGD(p, lr, momentum=0.9), 0.02),
    "SGD Nesterov": (lambda p, lr: optim.SGD(p, lr, momentum=0.9, nesterov=True), 0.05),
    "SGD dampening": (lambda p, lr: optim.SGD(p, lr, momentum=0.9, dampening=0.5), 0.04),
    "SGD foreach": (lambda p, lr: optim.SGD(p, lr, momentum=0.9, foreach=True), 0.02),
    "SGD fused": (lambda p, lr: optim.SGD(p, lr, momentum=0.9, fused=True), 0.02),
    "Adam": (lambda p, lr: optim.Adam(p, lr), 0.02),
    "Adam foreach": (lambda p, lr: optim.Adam(p, lr, foreach=True), 0.02),
    "Adam fused": (lambda p, lr: optim.Adam(p, lr, fused=True), 0.02),
    "Adam amsgrad": (lambda p, lr: optim.Adam(p, lr, amsgrad=True), 0.02),
    "AdamW": (lambda p, lr: optim.AdamW(p, lr, weight_decay=0.0), 0.02),
    "AdamW fused": (lambda p, lr: optim.AdamW(p, lr, weight_decay=0.0, fused=True), 0.02),
    "NAdam": (lambda p, lr: optim.NAdam(p, lr), 0.02),
    "RAdam": (lambda p, lr: optim.RAdam(p, lr), 0.05),
    "Adamax": (lambda p, lr: optim.Adamax(p, lr), 0.03),
    "Adagrad": (lambda p, lr: optim.Adagrad(p, lr), 0.3),
    "Adagrad decay": (lambda p, lr: optim.Adagrad(p, lr, lr_decay=1e-4, initial_accumulator_value=0.1), 0.5),
    "RMSprop": (lambda p, lr: optim.RMSprop(p, lr), 0.01),
    "RMSprop momentum": (lambda p, lr: optim.RMSprop(p, lr, momentum=0.9), 0.002),
    "Adadelta": (lambda p, lr: optim.Adadelta(p, lr), 5.0),
}
"""By name the optimizer and a learning rate with which it converges on standardized data."""
