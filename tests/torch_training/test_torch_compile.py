"""A compiled model, and a compiled step of the optimizer, train as they do without `torch.compile`.

The backend of the compiler is `"eager"`, which generates no code: what is tested here happens while it traces.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.exc import Unsupported

import poise
import poise.torch

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

COUNT = 12
RULES: dict[str, tuple[Any, str]] = {
    "L1": (lambda: poise.L1(0.3), "auto"),
    "groups": (lambda: poise.Rule("0.weight", poise.GroupLasso(0.3, groups="inputs")), "auto"),
    "anchored": (lambda: poise.Anchored(poise.L1(0.05)), "auto"),
    "coupled": (lambda: poise.L2(0.05), "coupled"),
    "decoupled": (lambda: poise.L2(0.05), "decoupled"),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.05),
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
}


@pytest.fixture(autouse=True)
def _no_programs_of_other_tests() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def problem() -> tuple[torch.nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    x = torch.randn(40, 6, dtype=torch.float64)
    return model, x, x[:, :1] - x[:, 1:2] * x[:, 2:3]


def train(
    optimizer_name: str,
    rules_name: str,
    compile_model: bool = False,
    compiled: Callable[[torch.optim.Optimizer], Callable[[], Any]] | None = None,
) -> tuple[list[torch.Tensor], poise.torch.PenaltyHandle]:
    """Return the weights after some steps, in which the learning rate and the strength change."""
    model, x, y = problem()
    network: Any = torch.compile(model, backend="eager") if compile_model else model
    optimizer = OPTIMIZERS[optimizer_name](network.parameters())
    make, update = RULES[rules_name]
    handle = poise.torch.penalize(optimizer, network, make(), update)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
    step = compiled(optimizer) if compiled else optimizer.step
    for count in range(COUNT):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        step()
        scheduler.step()
        if count == 6:
            handle.strength[next(iter(handle.strength))] = 2.0
    return [parameter.detach() for parameter in model.parameters()], handle


def method(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    return torch.compile(optimizer.step, backend="eager")


def function(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    @torch.compile(backend="eager")
    def step() -> None:
        optimizer.step()

    return step


def assert_same(weights: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float = 1e-9) -> None:
    for w, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(w, other, rtol=0.0, atol=tolerance)
        assert torch.equal(w == 0, other == 0)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("rules_name", ["L1", "groups"])
def test_a_compiled_model_trains_alike(optimizer_name: str, rules_name: str) -> None:
    expected, plain = train(optimizer_name, rules_name)
    weights, handle = train(optimizer_name, rules_name, compile_model=True)

    assert any((w == 0).any() for w in expected)
    assert_same(weights, expected)
    assert handle.zeros() == plain.zeros()


@pytest.mark.parametrize(
    ("optimizer_name", "rules_name", "compiled"),
    [("SGD", name, function) for name in RULES] + [("SGD", "L1", method), ("Adam", "L1", function)],
)
def test_a_compiled_step_trains_alike(optimizer_name: str, rules_name: str, compiled: Callable) -> None:
    """A compiled step of Adam computes its bias correction in float32."""
    expected, _ = train(optimizer_name, rules_name)
    weights, handle = train(optimizer_name, rules_name, compiled=compiled)

    assert_same(weights, expected, tolerance=1e-9 if optimizer_name == "SGD" else 1e-5)
    assert handle.strength.steps == COUNT


def test_the_hooks_are_not_traced() -> None:
    """Dynamo would compile them again for every new state of the optimizer, up to its limit."""
    graphs = []

    def record(graph: torch.fx.GraphModule, inputs: Any) -> Callable:
        graphs.append(graph)
        return graph.forward

    train("SGD", "L1", compiled=lambda optimizer: torch.compile(optimizer.step, backend=record))

    assert 1 <= len(graphs) <= 4


def test_a_step_in_one_program_is_refused() -> None:
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    poise.torch.penalize(optimizer, model, poise.L1(0.05))
    torch.nn.functional.mse_loss(model(x), y).backward()

    with pytest.raises(Unsupported, match="hooks of a penalized optimizer outside of torch.compile"):
        torch.compile(optimizer.step, backend="eager", fullgraph=True)()


def test_a_closure_in_a_compiled_step_is_penalized() -> None:
    def run(compiled: bool) -> list[torch.Tensor]:
        model, x, y = problem()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        handle = poise.torch.penalize(optimizer, model, [poise.L1(0.05), poise.Rule("bias", poise.L2(0.1))])

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        step: Any = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for _ in range(COUNT):
            step(closure)
        assert handle.strength.steps == COUNT
        return [parameter.detach() for parameter in model.parameters()]

    assert_same(run(compiled=True), run(compiled=False))


def test_names_are_those_of_the_module_in_the_wrapper() -> None:
    """Otherwise, paths in rules and strengths in a saved state would depend on the wrapper."""
    model, _, _ = problem()
    units = {"0.weight": ((5, 6), 0, [0, 1, 2, 3, 4]), "0.bias": ((5,), 0, [0, 1, 2, 3, 4])}
    rules = [
        poise.JointGroupLasso(0.1, units),
        poise.Rule(".2.weight", poise.L1(0.1)),
        poise.Rule(model[2], poise.L2()),
    ]
    wrappers: list[Any] = [model, torch.compile(model), torch.nn.DataParallel(model)]
    for wrapper in wrappers:
        optimizer = torch.optim.SGD(wrapper.parameters(), 0.1)
        handle = poise.torch.penalize(optimizer, wrapper, rules)

        assert list(handle.strength) == ["joint groups", ".2.weight", "2"]
        assert list(handle.summary().table["variable"].unique()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
