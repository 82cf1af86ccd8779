"""The proximal steps of an optimizer, in place: recorded as programs, in parts that fit into the cache.

The formulas of the penalties are functions of `keras.ops`, which costs more than the arithmetic of a small parameter.
So the operations of PyTorch that they consist of are recorded once, and then run without Keras, or compiled. Small
parameters with the same penalty and the same kind of step are joined.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from poise.optimizer.targets import Target
from poise.penalties import Anchored, GroupLasso, Penalty, SparseGroupLasso
from poise.penalties.axes import Axes, Sides
from poise.penalties.base import Separable
from poise.penalties.loops import fixed_steps
from poise.torch.metrics import StepSize
from poise.torch.tensors import on_device

PART = 1 << 17
"""The number of entries in a part: with its temporary tensors it fits into the second-level cache."""
JOINED = 1 << 15
"""Parameters of up to this size are joined."""

Program = Callable[..., Any]


class Job(NamedTuple):
    """The prox of one penalty on one tensor.

    Attributes:
        penalty: The penalty.
        rule: The number of its rule.
        target: The index of its target, the first one if parameters are joined.
        w: The weights, changed in place.
        step: Their steps.
    """

    penalty: Penalty
    rule: int
    target: int
    w: Tensor
    step: StepSize

    @property
    def is_entrywise(self) -> bool:
        """Whether each entry has the same formula, so that entries can be taken out and joined."""
        tensors = (self.w, *self.step.tensors)
        is_plain = isinstance(self.penalty, Separable) and self.penalty.factors is None
        return is_plain and all(tensor.is_contiguous() for tensor in tensors)

    @property
    def form(self) -> tuple:
        """What a program for this job depends on."""
        penalty, step, w = self.penalty, self.step, self.w
        start = self.target if isinstance(penalty, Anchored) else None
        return self.rule, penalty.sides, start, step.size, step.least, tuple(w.shape), w.dtype, w.device

    def compute(self, w: Tensor, moments: Sequence[Tensor], numbers: Sequence[Tensor]) -> Tensor:
        """Return the weights after the prox.

        Args:
            w: (A part of) the weights.
            moments: The same part of the tensors of the step.
            numbers: The strength, followed by the numbers and the fills of the step.
        """
        strength, *numbers_of_step = numbers
        return self.penalty.prox(w, self.step.at(moments, numbers_of_step), strength)


class ProximalSteps:
    """Applies proximal penalties to parameters.

    Args:
        compiles: Whether to compile the programs with TorchInductor, the default backend of `torch.compile`.
    """

    def __init__(self, compiles: bool = False) -> None:
        self._compiles = compiles
        self._programs: dict[tuple, Program] = {}

    def apply(self, jobs: Sequence[Job], strengths: Sequence[Any]) -> None:
        """Do jobs.

        Args:
            jobs: The jobs. No two have the same weights.
            strengths: The current strengths, in the order of the rules.
        """
        if self._compiles:
            self._apply_compiled([job for job in jobs if not job.penalty.is_iterative], strengths)
            jobs = [job for job in jobs if job.penalty.is_iterative]
        for together in _groups_to_join(jobs):
            if len(together) == 1:
                self._apply_in_parts(together[0], strengths[together[0].rule])
                continue
            joined = _concatenate(together)
            self._apply_in_parts(joined, strengths[joined.rule])
            for job, part in zip(together, joined.w.split([job.w.numel() for job in together]), strict=True):
                job.w.copy_(part.view(job.w.shape))

    def _apply_in_parts(self, job: Job, strength: Any) -> None:
        with on_device(job.w):
            numbers = _numbers(job, strength)
            for part in _parts(job):
                inputs = (part.w, part.step.tensors, numbers)
                if part.penalty.is_iterative:  # it usually needs more steps than a program has
                    part.w.copy_(part.compute(*inputs))
                    continue
                after, is_unfinished = self._program(part, inputs)(*inputs)
                if is_unfinished is not None and bool(is_unfinished):
                    after = part.compute(*inputs)
                part.w.copy_(after)

    def _program(self, job: Job, inputs: Sequence[Any]) -> Program:
        """Return the function that computes the weights and, if its loops stop early, whether they need more steps.

        A program has `FIXED_STEPS` steps per loop. Without a loop, the second result is None.
        """
        if job.form not in self._programs:

            def compute(*inputs: Any) -> tuple[Tensor, Tensor | None]:
                with fixed_steps() as unfinished:
                    return job.compute(*inputs), torch.stack(unfinished).any() if unfinished else None

            self._programs[job.form] = _record(compute, inputs)
        return self._programs[job.form]

    def _apply_compiled(self, jobs: Sequence[Job], strengths: Sequence[Any]) -> None:
        """Do all jobs in one program, and those again without it whose loops need more steps than it has."""
        if not jobs:
            return
        numbers = [number for job in jobs for number in (strengths[job.rule], *job.step.numbers)]
        tensors = [tensor for job in jobs for tensor in (job.w, *job.step.tensors)]
        # On a CPU, the numbers are packed into one tensor, because every input costs time. On a GPU, they stay separate
        # tensors without axes, which TorchInductor passes to the kernels as scalars.
        is_packed = not any(isinstance(number, Tensor) for number in numbers)
        is_packed = is_packed and all(job.w.device.type == "cpu" for job in jobs)
        inputs = [*tensors, *([torch.tensor(numbers, dtype=torch.float64)] if is_packed else _as_tensors(numbers))]
        properties = [(tensor.stride(), tensor.dtype, tensor.device) for tensor in inputs]
        form = (is_packed, *(job.form for job in jobs), *properties)
        if form not in self._programs:
            self._programs[form] = _compile(_record(_combine(jobs, len(tensors), is_packed), inputs), inputs)
        flags = self._programs[form](*inputs)
        if flags is None or not bool(flags.any()):
            return
        for job, is_unfinished in zip(jobs, flags.tolist(), strict=True):
            if is_unfinished:
                with on_device(job.w):
                    job.w.copy_(job.compute(job.w, job.step.tensors, _numbers(job, strengths[job.rule])))


def jobs_of(
    target: Target,
    weights_of: Callable[[int], Tensor],
    step_of: Callable[[int], StepSize],
    strengths: Sequence[Any],
) -> list[Job]:
    """Return the jobs of a target with one parameter. Do those of a target with several at once, and return [].

    Args:
        target: The target.
        weights_of: Returns the weights of a parameter, given its number.
        step_of: Returns the steps of a parameter, given its number.
        strengths: The current strengths, in the order of the rules.
    """
    if not target.is_joint:
        w, step = weights_of(target.index), step_of(target.index)
        return [Job(penalty, rule, target.index, w, step) for rule, penalty in target.proximal if w.numel()]
    weights = {number: weights_of(number) for number in target.members}
    steps = {number: step_of(number) for number in target.members}
    with on_device(weights[target.index]):
        sizes = {number: step.whole() for number, step in steps.items()}
        if any(step.tensors for step in steps.values()):
            step = target.gather(lambda number: torch.as_tensor(sizes[number]).expand(weights[number].shape))
        else:
            step = sizes[target.index]
        for rule, penalty in target.proximal:
            joined = penalty.prox(target.gather(weights.__getitem__), step, strengths[rule])
            for number, part in target.split(joined):
                weights[number].copy_(part)
    return []


def axis_of_groups(penalty: Penalty, shape: Sequence[int]) -> int | None:
    """Return the axis whose indices are the groups of a penalty, or None if its groups are something else."""
    if not isinstance(penalty, (GroupLasso, SparseGroupLasso)) or penalty.factors is not None:
        return None
    if isinstance(penalty.groups, list):
        return None
    axes = penalty.layout_of(tuple(shape)).axes
    if len(axes.chosen) != 1 or any(len(lengths) > 1 for lengths in axes.parts):
        return None
    return axes.chosen[0]


def _record(compute: Callable[..., Any], inputs: Sequence[Any]) -> Program:
    """Return the operations of PyTorch that a function consists of, as a function. It keeps the start of `Anchored`."""
    return make_fx(compute, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)


def _combine(jobs: Sequence[Job], count: int, is_packed: bool) -> Program:
    """Return a function that does all jobs in place, except those whose loop does not end within `FIXED_STEPS` steps.

    Its first `count` inputs are the weights and the tensors of the steps. The others are the numbers, in one vector if
    `is_packed`. It returns one flag per job, whether it is unfinished, or None if no job has a loop.
    """

    def compute(*inputs: Tensor) -> Tensor | None:
        flags, has_loop = [], False
        tensors = iter(inputs[:count])
        numbers = iter(inputs[count].unbind() if is_packed else inputs[count:])
        for job in jobs:
            w, *moments = islice(tensors, 1 + len(job.step.tensors))
            own = islice(numbers, 1 + len(job.step.numbers))
            step = job.step._replace(tensors=tuple(moments))
            with on_device(w), fixed_steps() as unfinished:
                after = job.compute(w, moments, [*own, *step.fills()])
                flag = torch.stack(unfinished).any() if unfinished else torch.zeros((), dtype=torch.bool)
                w.copy_(torch.where(flag, w, after) if unfinished else after)
            flags.append(flag.to(inputs[0].device))
            has_loop = has_loop or bool(unfinished)
        return torch.stack(flags) if has_loop else None

    return compute


def _compile(program: Any, inputs: Sequence[Any]) -> Program:
    """Compile a recorded program for inputs with the same shapes, strides, dtypes, and devices.

    `torch.compile` checks its inputs at every call, which takes longer than the step of a small network, so
    TorchInductor is called directly. The exception is a program with an operation whose output shape depends on values
    (as in `keras.ops.segment_sum`): only `torch.compile` can split a program there.
    """
    if any(torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ()) for node in program.graph.nodes):
        return torch.compile(program)
    from torch._inductor import compile as compile_graph

    # Callers look up a program by these properties of its inputs, so it does not check them.
    compiled: Any = compile_graph(program, list(inputs), options={"size_asserts": False})
    return compiled


def _groups_to_join(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return lists of jobs, each of which can be done as one."""
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        key: Any = id(job)
        if job.w.numel() <= JOINED and job.is_entrywise and not any(isinstance(n, Tensor) for n in job.step.numbers):
            step = job.step
            key = (job.rule, step.size, step.numbers, step.least, job.w.dtype, job.w.device)
        groups.setdefault(key, []).append(job)
    return list(groups.values())


def _concatenate(jobs: Sequence[Job]) -> Job:
    """Return one job on the weights of several, as a vector."""
    first = jobs[0]
    moments = zip(*(job.step.tensors for job in jobs), strict=True)
    tensors = tuple(torch.cat([moment.view(-1) for moment in of_jobs]) for of_jobs in moments)
    w = torch.cat([job.w.view(-1) for job in jobs])
    return first._replace(w=w, step=first.step._replace(tensors=tensors))


def _parts(job: Job) -> Iterator[Job]:
    """Yield jobs on parts of the weights that together do a job."""
    tensors = [job.w, *job.step.tensors]
    axis = None
    if job.w.numel() > PART and job.w.device.type == "cpu":
        axis = 0 if job.is_entrywise else axis_of_groups(job.penalty, job.w.shape)
    if axis is None:
        yield job
        return
    if job.is_entrywise:
        tensors, count = [tensor.view(-1) for tensor in tensors], PART
    else:
        count = max(1, PART * job.w.shape[axis] // job.w.numel())
    for w, *moments in zip(*(tensor.split(count, axis) for tensor in tensors), strict=True):
        along = Axes.along(w.shape, axis)
        penalty = job.penalty if job.is_entrywise else job.penalty.bind(Sides(along, along))
        yield job._replace(penalty=penalty, w=w, step=job.step._replace(tensors=tuple(moments)))


def _numbers(job: Job, strength: Any) -> list[Tensor]:
    return [*_as_tensors([strength, *job.step.numbers]), *job.step.fills()]


def _as_tensors(numbers: Sequence[Any]) -> Sequence[Tensor]:
    """Return numbers as tensors without axes, on whose values a recorded program does not depend."""
    if any(isinstance(number, Tensor) for number in numbers):
        return [torch.as_tensor(number, dtype=torch.float64) for number in numbers]
    return torch.tensor(numbers, dtype=torch.float64).unbind()
