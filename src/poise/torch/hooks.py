"""One step of a penalized `torch.optim` optimizer: before and after the step of the optimizer itself."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.optimizer.targets import Target, measure, penalty_gradient
from poise.torch.metrics import BEFORE, STEPS, TRACE, After, StepSize, multiply, registered_class
from poise.torch.parameters import Parameter
from poise.torch.prox import ProximalSteps, jobs_of
from poise.torch.strengths import OptimizerStrengths
from poise.torch.tensors import full, local, on_device, sharded_like

START = "penalty_start"
"""The key in the state of a parameter that holds the start weights of `poise.Anchored`."""
UNTRACED = "poise runs the hooks of a penalized optimizer outside of torch.compile: compile the step without fullgraph"
"""What `torch.compile` reports about a step that it cannot compile as one program."""


def _untraced(function: Callable[..., Any]) -> Any:
    """Keep a function out of `torch.compile`, with a reason if this version of PyTorch can report one."""
    has_reason = "reason" in inspect.signature(torch.compiler.disable).parameters
    settings: dict[str, Any] = {"reason": UNTRACED} if has_reason else {}
    return torch.compiler.disable(function, **settings)


class StepHooks:
    """What runs before and after every step of an optimizer.

    Args:
        optimizer: The optimizer.
        parameters: The parameters that it trains, by the numbers that the targets use.
        targets: What is penalized.
        strengths: The current strengths.
        has_metric: Whether a prox acts in the metric of the optimizer; otherwise with the learning rate.
        observe_every: Record the forces at every `observe_every`-th step; 0 for never.
        compiles: Whether to compile the proximal steps.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[Parameter],
        targets: Sequence[Target],
        strengths: OptimizerStrengths,
        has_metric: bool,
        observe_every: int,
        compiles: bool,
    ) -> None:
        self.optimizer = optimizer
        self.tensors = [parameter.tensor for parameter in parameters]
        self.targets = list(targets)
        self.strengths = strengths
        self.observe_every = observe_every
        self.forces, self.samples = np.zeros((len(targets), 4)), 0
        self._step_of = STEPS[registered_class(optimizer)][1] if has_metric else None
        self._before_name = BEFORE.get(registered_class(optimizer)) if has_metric else None
        self._before: dict[int, Tensor] = {}
        self._proximal = ProximalSteps(compiles)
        self._has_starts = any(self._starts(target) for target in targets)
        self._groups = self._find_groups()
        self._group_count = len(optimizer.param_groups)
        self.handle: Any = None
        """The `PenaltyHandle` of these hooks, for `poise.torch.handle_of`."""
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        self._after_load(optimizer)  # its state may have been loaded before

    def remove(self) -> None:
        """Remove the hooks, and what they added to the state of the optimizer."""
        for handle in self._handles:
            handle.remove()
        for tensor in self.tensors:
            state = self.optimizer.state.get(tensor, {})
            state.pop(START, None)
            state.pop(TRACE, None)
            if not state:  # to read the state of a parameter creates it
                self.optimizer.state.pop(tensor, None)

    def weights_of(self, target: Target) -> Tensor:
        """Return what the penalties of a target act on."""
        return target.gather(lambda number: full(self.tensors[number].detach()))

    def measure_forces(self) -> np.ndarray:
        """Return (targets, 4) measures of the forces (see `measure`) with the gradients that the parameters have now.

        Raises:
            ValueError: If a penalized parameter has no gradient.
        """
        strengths = self.strengths.tensors()
        rows = []
        for target in self.targets:
            if any(self.tensors[number].grad is None for number in target.members):
                raise ValueError(
                    f"The parameter {target.path!r} has no gradient. Call forces() after loss.backward() and before "
                    "optimizer.step(), or pass observe_every to poise.torch.penalize."
                )
            with on_device(self.tensors[target.index]):
                gradient = target.gather(self._gradient)
                rows.append(measure(target, self.weights_of(target), gradient, strengths).cpu().numpy())
        return np.array(rows, "float64").reshape(-1, 4)

    @_untraced
    def _before_step(self, optimizer: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Act before the optimizer's step, or inside it if it computes the gradients there, with a closure."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._prepare()
            return None

        def closure_with_penalty() -> Any:
            loss = closure()
            self._prepare_untraced()
            return loss

        if len(args) > 1:
            return (args[0], closure_with_penalty, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_with_penalty}

    @torch.no_grad()
    def _prepare(self) -> None:
        """Record the forces, save what the step overwrites, and apply the coupled and decoupled penalties."""
        if self._overflowed():
            return
        if len(self.optimizer.param_groups) > self._group_count:
            self._group_count = len(self.optimizer.param_groups)
            warnings.warn(
                "Parameters that were added to the optimizer after poise.torch.penalize are not penalized. To penalize "
                "them, call handle.remove() and poise.torch.penalize again.",
                stacklevel=2,
            )
        targets = list(self._active_targets())
        for target in targets if self._has_starts else ():
            for start in self._starts(target):
                if START not in self.optimizer.state[self.tensors[target.index]]:  # weights may have been loaded
                    start.copy_(self.weights_of(target))
        strengths = self.strengths.tensors()
        if self.observe_every and self.strengths.steps % self.observe_every == 0 and len(targets) == len(self.targets):
            self.forces, self.samples = self.forces + self.measure_forces(), self.samples + 1
        for target in targets:
            if self._before_name and target.proximal:
                for number in target.members:
                    value = self.optimizer.state[self.tensors[number]].get(self._before_name)
                    if value is not None:
                        self._before[number] = value.clone()
            if not target.coupled and not target.decoupled:
                continue
            with on_device(self.tensors[target.index]):
                w = self.weights_of(target)
                if target.decoupled:
                    step = self._group(target.index)["lr"] * penalty_gradient(target.decoupled, w, strengths)
                    self._add(target, -step, lambda number: self.tensors[number])
                if target.coupled:
                    self._add(target, penalty_gradient(target.coupled, w, strengths), self._dense_gradient)

    _prepare_untraced = _untraced(_prepare)

    @_untraced
    @torch.no_grad()
    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Apply the proximal penalties, and count the step."""
        if self._overflowed():
            return
        strengths = self.strengths.tensors()
        targets = list(self._active_targets())
        for target in targets if self._has_starts else ():
            for start in self._starts(target):
                self.optimizer.state[self.tensors[target.index]].setdefault(START, start)
        jobs = []
        for target in targets:
            if target.proximal:
                jobs += jobs_of(target, self._weights, self._step_size, strengths)
        self._proximal.apply(jobs, strengths)
        self._before = {}
        self.strengths.steps += 1

    def _overflowed(self) -> bool:
        """Whether a fused optimizer skips this step, because of gradients that overflowed (`torch.amp.GradScaler`)."""
        found_inf = getattr(self.optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    def _weights(self, number: int) -> Tensor:
        return local(self.tensors[number].detach())

    def _step_size(self, number: int) -> StepSize:
        tensor, group = self.tensors[number], self._group(number)
        if self._step_of is None:
            return StepSize(multiply, (), (group["lr"], 1.0))
        return self._step_of(After(group, self.optimizer.state[tensor], self._before.get(number)))

    def _active_targets(self) -> Iterator[Target]:
        """Yield the targets that this step trains: PyTorch optimizers skip parameters without a gradient.

        Raises:
            ValueError: If only some parameters of a joint penalty have a gradient.
        """
        for target in self.targets:
            missing = [number for number in target.members if self.tensors[number].grad is None]
            if missing and len(missing) < len(target.members):
                raise ValueError(
                    f"Rule {target.path!r} penalizes {len(target.members)} parameters jointly, and {len(missing)} of "
                    "them have no gradient in this step. Train all of them in every step, or leave them out of the "
                    "penalty."
                )
            if not missing:
                yield target

    def _add(self, target: Target, joined: Tensor, tensor_of: Callable[[int], Tensor]) -> None:
        for number, part in target.split(joined):
            tensor = tensor_of(number)
            part = sharded_like(part, tensor)
            if tensor is self.tensors[number]:
                tensor.add_(part.to(tensor.dtype))
                continue
            scale = getattr(self.optimizer, "grad_scale", None)  # the gradients of a fused optimizer are still scaled
            part = part if scale is None else part * scale
            tensor.add_(-part if self._group(number).get("maximize") else part)

    def _dense_gradient(self, number: int) -> Tensor:
        tensor = self.tensors[number]
        if tensor.grad is not None and tensor.grad.is_sparse:
            tensor.grad = tensor.grad.to_dense()
        assert tensor.grad is not None
        return tensor.grad

    def _gradient(self, number: int) -> Tensor:
        """The gradient of the prediction loss, which the optimizer minimizes."""
        gradient = full(self._dense_gradient(number))
        scale = getattr(self.optimizer, "grad_scale", None)
        gradient = gradient if scale is None else gradient / scale
        return -gradient if self._group(number).get("maximize") else gradient

    def _group(self, number: int) -> dict[str, Any]:
        return self.optimizer.param_groups[self._groups[number]]

    def _find_groups(self) -> dict[int, int]:
        """Map the number of a parameter to its parameter group."""
        place = {
            id(tensor): index for index, group in enumerate(self.optimizer.param_groups) for tensor in group["params"]
        }
        return {number: place[id(tensor)] for number, tensor in enumerate(self.tensors)}

    def _after_load(self, optimizer: Any) -> None:
        """Take the start weights of `poise.Anchored` from the state that was loaded."""
        for target in self.targets:
            start = self.optimizer.state.get(self.tensors[target.index], {}).get(START)
            if start is not None:
                for anchor in self._starts(target):
                    anchor.copy_(start)

    def _starts(self, target: Target) -> list[Tensor]:
        """Return the start weights of a target's `poise.Anchored` penalties without a given start."""
        starts = [getattr(penalty, "start", None) for _, penalty in target.penalties]
        return [start for start in starts if isinstance(start, Tensor)]
