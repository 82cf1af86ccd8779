"""The smaller module is a plain copy, and the original is not touched."""

import copy
import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from module_checks import assert_same, compacted, net, randomized, silence, unread
from torch import nn
from torch.nn.utils import prune

from poise.torch.compaction import compact, dead_units

ROWS = torch.linspace(-1.0, 1.0, 4 * 3).reshape(4, 3).cos()


def small_net() -> Any:
    """Three layers with a dead unit each."""
    layers = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)
    model = randomized(nn.Sequential(*layers))
    silence(model[0], [1], bias=0.4)
    unread(model[6], [2])
    return model


def test_neither_the_module_nor_the_inputs_nor_random_numbers_change() -> None:
    model, x = small_net().train(), ROWS.clone()
    state = copy.deepcopy(model.state_dict())
    parameters = [id(weight) for weight in model.parameters()]
    torch.manual_seed(3)
    random_state = torch.get_rng_state(), random.getstate(), _numpy_state()

    dead_units(model, x)
    compact(model, x)

    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert [id(weight) for weight in model.parameters()] == parameters
    assert all(module.training for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(x, ROWS)
    assert torch.equal(torch.get_rng_state(), random_state[0])
    assert random.getstate() == random_state[1]
    assert _numpy_state() == random_state[2]


def _numpy_state() -> bytes:
    state: Any = np.random.get_state()
    return state[1].tobytes()


def test_training_flags_and_frozen_parameters_are_kept() -> None:
    model = small_net().train()
    model[1].eval()
    for weight in model[0].parameters():
        weight.requires_grad_(False)

    smaller = compact(model, ROWS)

    assert [module.training for module in smaller] == [module.training for module in model]
    assert [weight.requires_grad for weight in smaller.parameters()] == [w.requires_grad for w in model.parameters()]
    smaller(ROWS).sum().backward()
    assert smaller[0].weight.grad is None
    assert smaller[4].weight.grad is not None
    assert_same(model.eval(), smaller.eval(), ROWS)


def test_the_smaller_module_is_plain_and_can_be_saved() -> None:
    smaller = compact(small_net(), ROWS)
    assert [type(module) for module in smaller] == [type(module) for module in small_net()]
    assert list(vars(smaller)) == list(vars(small_net()))
    file = io.BytesIO()
    torch.save(smaller.state_dict(), file)
    file.seek(0)
    others = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)
    other = nn.Sequential(*others).eval()
    other.load_state_dict(torch.load(file))
    assert_same(smaller, other, ROWS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype) -> None:
    model = small_net().to(dtype)
    smaller = compact(model, ROWS.to(dtype))
    assert {weight.dtype for weight in smaller.parameters()} == {dtype}
    assert smaller[0].out_features == 3
    assert torch.equal(smaller[0].weight, model[0].weight[[0, 2, 3]])


def test_weights_that_do_not_change_stay_the_same_in_every_bit() -> None:
    model = randomized(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    smaller = compact(model, ROWS)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), smaller.parameters(), strict=True))
    assert_same(model, compact(smaller, ROWS), ROWS)


def test_an_embedding_tied_to_the_head_stays_tied() -> None:
    def forward(self, x):
        return self.head(torch.relu(self.hidden(self.embedding(x))))

    layers = {"embedding": nn.Embedding(7, 4), "hidden": nn.Linear(4, 4), "head": nn.Linear(4, 7)}
    model = net(forward, **layers)
    model.head.weight = model.embedding.weight
    x = torch.arange(6).reshape(2, 3)
    with torch.no_grad():
        model.embedding.weight[:, 1] = 0.0
    silence(model.hidden, [1])

    smaller = compacted(model, x)

    assert smaller.embedding.embedding_dim == smaller.hidden.in_features == smaller.hidden.out_features == 3
    assert smaller.head.weight is smaller.embedding.weight

    with torch.no_grad():
        model.embedding.weight[:, 1] = 0.3  # constant for the embedding, but read by the head
    model.hidden.bias.data[1] = 0.5
    assert compacted(model, x).embedding.embedding_dim == 3
    with torch.no_grad():
        model.hidden.weight[1, 0] = 0.5
    assert compacted(model, x).embedding.embedding_dim == 4


def test_layers_that_share_a_bias_fold_no_constants() -> None:
    model = randomized(nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    model[2].bias = model[0].bias
    silence(model[0], [1], bias=0.4)
    unread(model[4], [1])
    assert compacted(model, ROWS)[0].out_features == 4
    model[2].bias = nn.Parameter(model[0].bias.detach().clone())
    assert compacted(model, ROWS)[0].out_features == 3


def test_a_weight_that_is_used_in_two_ways_keeps_its_units() -> None:
    def forward(self, x):
        return self.head(self.first(x)) + (x @ self.first.weight.T).sum()

    model = net(forward, first=nn.Linear(3, 4), head=nn.Linear(4, 2))
    silence(model.first, [1])
    assert compacted(model, ROWS).first.out_features == 4
    assert dead_units(model, ROWS)["why"][0] == "all stay: 'first' (Linear) shares its 'weight' with other code"


def test_the_same_module_under_two_names_is_resized_once() -> None:
    model = net(lambda self, x: self.b(self.act(self.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2), act=nn.ReLU())
    model.also_a = model.a
    silence(model.a, [1])
    smaller = compacted(model, ROWS)
    assert smaller.also_a is smaller.a
    assert smaller.a.out_features == 3


def test_hooks_and_parametrizations_keep_the_units_of_their_layer() -> None:
    model = small_net()
    model[4].register_forward_hook(lambda module, inputs, output: output * 2.0)
    smaller = compacted(model, ROWS)
    assert (smaller[0].out_features, smaller[4].out_features) == (4, 5)
    assert "'4' (Linear with hooks), which poise.torch.compact does not support" in dead_units(model, ROWS)["why"][0]

    for parametrize in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        model = small_net()
        parametrize(model[4])
        model.eval()
        assert compacted(model, ROWS)[0].out_features == 4
        assert "ParametrizedLinear" in dead_units(model, ROWS)["why"][0]
        nn.utils.parametrize.remove_parametrizations(model[4], "weight")
        assert compacted(model, ROWS)[0].out_features == 3


def test_a_pruned_module_is_compacted_after_prune_remove() -> None:
    model = small_net()
    prune.ln_structured(model[4], "weight", 2, n=2, dim=0)
    with pytest.raises(ValueError, match=r"cannot be copied with copy.deepcopy: .*torch.nn.utils.prune.remove"):
        compact(model, ROWS)
    prune.remove(model[4], "weight")
    assert compacted(model, ROWS)[4].out_features == 2  # and unit 2 is not read


def test_tensors_in_the_forward_code_leave_no_trace() -> None:
    model = net(lambda self, x: self.b(self.a(x) + torch.tensor(0.5)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    smaller = compact(model, ROWS)
    assert list(vars(smaller)) == list(vars(model))


def test_buffers_that_the_forward_code_changes_are_restored() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.calls: torch.Tensor
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1.0)
            return self.layer(x)

    assert compact(Counting(), ROWS).calls == 0.0
