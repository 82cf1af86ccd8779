"""Every refusal is one sentence or two that say what is wrong and what to do."""

import re
from typing import Any

import keras
import pytest
import torch
from module_checks import net, randomized, silence
from torch import nn

import poise.torch
from poise.torch.compaction import compact, dead_units, verification

ROWS = torch.ones(2, 3)


def small_net() -> nn.Sequential:
    return randomized(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))


@pytest.mark.parametrize("function", [compact, dead_units])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tolerance": -1.0}, ValueError, "tolerance must be a finite number >= 0, got -1.0."),
        ({"tolerance": True}, TypeError, "tolerance must be a finite number >= 0, got True."),
        ({"multiple": 0}, ValueError, "multiple must be an int >= 1, got 0."),
        ({"multiple": 1.5}, TypeError, "multiple must be an int >= 1, got 1.5."),
    ],
)
def test_wrong_options(function, options, error, message) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(small_net(), ROWS, **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: 3, "model must be a torch.nn.Module that is not scripted, got int."),
        (lambda: torch.relu, "model must be a torch.nn.Module that is not scripted, got builtin_function_or_method."),
        (
            lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="net"),
            "'net' is a Keras model. Use poise.compact.",
        ),
    ],
)
def test_another_type_of_model(model, message) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        compact(model(), ROWS)


@pytest.mark.filterwarnings("ignore")
def test_wrapped_modules() -> None:
    with pytest.raises(TypeError, match=r"^model must be the module inside of the DataParallel, model.module.$"):
        compact(nn.DataParallel(small_net()), ROWS)
    compiled: Any = torch.compile(small_net())
    with pytest.raises(TypeError, match=r"^model must be the module that was passed to torch.compile, not what it "):
        compact(compiled, ROWS)
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module that is not scripted"):
        compact(torch.jit.script(small_net()), ROWS)


@pytest.mark.parametrize("inputs", [None, 3, (), [ROWS, 2], {"x": ROWS}], ids=str)
def test_another_type_of_inputs(inputs) -> None:
    with pytest.raises(TypeError, match=r"^example_inputs must be a tensor or a tuple of tensors, got "):
        compact(small_net(), inputs)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^Sequential cannot be run on example_inputs: .*Pass one tensor, or a tuple"):
        compact(small_net(), torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"^Sequential cannot be run on example_inputs: "):
        compact(small_net(), (ROWS, ROWS))


def test_a_lazy_layer() -> None:
    with pytest.raises(ValueError, match=r"^The parameter '0.weight' has no shape yet. Call the model on data first.$"):
        compact(nn.Sequential(nn.LazyLinear(4)), ROWS)


@pytest.mark.parametrize("is_model", [False, True])
def test_keras_layers_inside_a_module(is_model) -> None:
    layer = keras.layers.Dense(4)
    inside: Any = keras.Sequential([keras.Input((4,)), layer]) if is_model else layer
    inside(torch.ones(1, 4))
    message = "torch.fx cannot trace the Keras layer '1'. Use a layer of torch.nn in its place."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compact(nn.Sequential(nn.Linear(3, 4), inside), ROWS)


class Routed(nn.Module):
    """Its control flow depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_control_flow_that_depends_on_data() -> None:
    model = net(
        lambda self, x: self.head(self.routed(self.first(x))),
        **{"first": nn.Linear(3, 4), "routed": Routed(), "head": nn.Linear(4, 2)},
    )
    message = (
        "torch.fx cannot trace the forward of 'routed': its control flow depends on the values of a tensor. "
        "poise.torch.compact needs forward code whose control flow does not depend on the values of tensors. Rewrite "
        "that code, or compact the submodules one by one."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compact(model, ROWS)


def test_a_change_in_place_that_another_view_sees() -> None:
    def forward(self, x):
        x = self.first(x)
        view = x.view(-1)
        x.relu_()
        return self.head(view.view(-1, 4))

    model = net(forward, first=nn.Linear(3, 4), head=nn.Linear(4, 2))
    with pytest.raises(
        ValueError, match=r"^The operation 'relu_' changes a tensor in place, and 'view' is another view"
    ):
        compact(model, ROWS)


def test_outputs_that_differ_are_an_internal_error(monkeypatch) -> None:
    model = small_net()
    silence(model[0], [1], bias=0.5)
    from poise.torch.compaction import linear

    monkeypatch.setattr(linear.TorchLinear, "bias_additions", lambda self, call, stays: {})
    message = r"^Internal error: the outputs of the smaller module differ by [0-9.e-]+ on example_inputs. The forward code may"
    with pytest.raises(RuntimeError, match=message):
        compact(model, ROWS)


def test_check_of_outputs() -> None:
    verification.check_outputs({"a": (ROWS, [ROWS])}, {"a": (ROWS + 1e-7, [ROWS])})
    verification.check_outputs(ROWS, ROWS + 1.0, has_same_values=False)
    verification.check_outputs(torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0]))
    with pytest.raises(RuntimeError, match=r"have the shape \(2, 1\) instead of \(2, 3\) on example_inputs"):
        verification.check_outputs(ROWS, ROWS[:, :1], has_same_values=False)
    with pytest.raises(RuntimeError, match="differ by 0.01 on"):
        verification.check_outputs(ROWS, ROWS + 0.01)


def test_compact_is_public() -> None:
    assert poise.torch.compact is compact
