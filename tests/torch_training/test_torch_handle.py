"""What `poise.torch.PenaltyHandle` reports, and that the coupled and decoupled updates are what they claim."""

from typing import Any

import numpy as np
import pytest
import torch

import poise
import poise.torch

X, Y = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40.0)[:, None] / 20 - 1


def linear() -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(5, 1)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, penalty: Any = None) -> float:
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(X), Y)
    (loss if penalty is None else loss + penalty(model)).backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", ["SGD", "Adam", "LBFGS"])
def test_coupled_l2_is_l2_in_the_loss(name: str) -> None:
    ours, theirs = linear(), linear()
    make = {
        "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        "Adam": lambda p: torch.optim.Adam(p, 0.1),
        "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
    }[name]
    mine, other = make(ours.parameters()), make(theirs.parameters())
    poise.torch.penalize(mine, ours, poise.L2(0.3))
    for _ in range(5):
        for model, optimizer, strength in ((ours, mine, 0.0), (theirs, other, 0.3)):

            def closure(model: Any = model, optimizer: Any = optimizer, strength: float = strength) -> Any:
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(X), Y) + strength * model.weight.square().sum()
                loss.backward()
                return loss

            optimizer.step(closure)

    # LBFGS also reads the value of the loss, which does not contain the penalty, only to decide when to stop.
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_decoupled_l2_is_the_weight_decay_of_adamw() -> None:
    ours, theirs = linear(), linear()
    mine = torch.optim.AdamW(ours.parameters(), 0.05, weight_decay=0.0)
    groups = [{"params": [theirs.weight], "weight_decay": 0.4}, {"params": [theirs.bias], "weight_decay": 0.0}]
    other = torch.optim.AdamW(groups, 0.05)
    poise.torch.penalize(mine, ours, poise.L2.from_weight_decay(0.4), update="decoupled")
    for _ in range(20):
        step(ours, mine)
        step(theirs, other)

    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)


def test_the_loss_is_the_prediction_loss_and_the_penalty_is_its_value() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rules = [poise.Rule("weight", poise.L2(0.2), name="matrix"), poise.Rule("bias", poise.L1(0.3), name="bias")]
    handle = poise.torch.penalize(optimizer, model, rules)
    step(model, optimizer)

    expected = {"matrix": 0.2 * model.weight.square().sum().item(), "bias": 0.3 * model.bias.abs().sum().item()}
    assert handle.penalties() == pytest.approx(expected, rel=1e-5)
    assert handle.penalty() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_strengths_are_read_set_and_take_effect() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.1))
    assert dict(handle.strength) == {"kernels": 0.1}

    handle.strength["kernels"] = 100.0
    step(model, optimizer)
    assert (model.weight == 0).all()
    assert handle.zeros() == {"kernels": 1.0}
    with pytest.raises(ValueError, match="strength must be"):
        handle.strength["kernels"] = -1.0
    with pytest.raises(KeyError, match="No rule is named 'weights'"):
        handle.strength["weights"] = 1.0


def test_a_schedule_follows_the_steps() -> None:
    import keras

    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0)
    handle = poise.torch.penalize(optimizer, model, poise.L1(schedule))
    seen = []
    for _ in range(6):
        seen.append(handle.strength["kernels"])
        step(model, optimizer)

    assert seen == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])


def test_forces_are_those_of_the_gradients_now() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = poise.torch.penalize(optimizer, model, poise.L2(0.3))
    with pytest.raises(ValueError, match="has no gradient. Call forces"):
        handle.forces()
    torch.nn.functional.mse_loss(model(X), Y).backward()

    (row,) = handle.forces().to_dict("records")
    w, gradient = model.weight.detach(), model.weight.grad
    assert gradient is not None
    assert row["variable"] == "weight"
    assert row["prediction"] == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert row["penalty"] == pytest.approx(float((0.6 * w).norm()), rel=1e-5)
    assert row["residual"] == pytest.approx(float((gradient + 0.6 * w).norm()), rel=1e-5)


def test_recorded_forces_are_root_mean_squares_over_the_observed_steps() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = poise.torch.penalize(optimizer, model, poise.L2(0.3), observe_every=2)
    with pytest.raises(ValueError, match="No forces were recorded"):
        handle.forces()
    norms = []
    for count in range(5):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(X), Y).backward()
        assert model.weight.grad is not None
        if count % 2 == 0:
            norms.append(float(model.weight.grad.norm()))
        optimizer.step()

    assert handle.forces()["prediction"].item() == pytest.approx(np.sqrt(np.mean(np.square(norms))), rel=1e-5)
    handle.reset_forces()
    with pytest.raises(ValueError, match="No forces were recorded"):
        handle.forces()


def test_removing_ends_the_penalty_and_leaves_no_trace() -> None:
    model, plain = linear(), linear()
    optimizer, other = torch.optim.Adam(model.parameters()), torch.optim.Adam(plain.parameters())
    handle = poise.torch.penalize(optimizer, model, poise.L1(10.0))
    handle.remove()
    step(model, optimizer)
    step(plain, other)

    assert torch.equal(model.weight, plain.weight)
    assert optimizer.state_dict()["param_groups"] == other.state_dict()["param_groups"]


def test_removing_leaves_nothing_in_the_state_of_the_optimizer() -> None:
    model, plain = linear(), linear()
    optimizer, other = (torch.optim.SGD(net.parameters(), 0.1, momentum=0.9) for net in (model, plain))
    handle = poise.torch.penalize(optimizer, model, poise.Anchored(poise.L1(0.1)))
    step(model, optimizer)
    step(plain, other)
    handle.remove()

    assert optimizer.state[model.weight].keys() == other.state[plain.weight].keys()
    assert optimizer.state_dict()["state"].keys() == other.state_dict()["state"].keys()
    with torch.no_grad():
        model.weight.fill_(2.0)
    handle = poise.torch.penalize(optimizer, model, poise.Anchored(poise.L1(50.0)))
    step(model, optimizer)
    assert (model.weight == 2.0).all()  # the anchor is where the new training started


def test_removing_leaves_no_empty_state() -> None:
    """SGD without momentum keeps no state."""
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.1))
    step(model, optimizer)
    handle.remove()

    assert not optimizer.state


def test_the_summary_and_the_text_name_penalty_and_update() -> None:
    model = linear()
    handle = poise.torch.penalize(torch.optim.Adam(model.parameters()), model, poise.L1(0.1))

    assert repr(handle) == "<PenaltyHandle Adam, update='auto', rules={'kernels': L1(strength=0.1)}>"
    assert str(handle.summary()).splitlines()[0] == "Linear: 1 of 2 trained parameters penalized, update='auto'"
    assert handle.summary().table["update"].tolist() == ["proximal", ""]


def test_parameters_without_a_gradient_are_left_alone() -> None:
    model: Any = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    poise.torch.penalize(optimizer, model, [poise.L1(0.5)])
    unused = model[1].weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        model[0](torch.ones(1, 2)).sum().backward()
        optimizer.step()

    assert torch.equal(model[1].weight, unused)
    assert not torch.equal(model[0].weight, unused)


def test_sparse_gradients_of_an_embedding_are_penalized() -> None:
    dense, sparse = torch.nn.Embedding(6, 2), torch.nn.Embedding(6, 2, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    for penalty in (poise.L1(0.1), poise.L2(0.1)):
        for model in (dense, sparse):
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            poise.torch.penalize(optimizer, model, penalty)
            model(torch.tensor([1, 3])).square().sum().backward()
            optimizer.step()
            model.zero_grad()

    torch.testing.assert_close(dense.weight, sparse.weight)


def test_anchored_weights_return_to_where_training_started() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = poise.torch.penalize(optimizer, model, poise.Anchored(poise.L1(50.0)))
    with torch.no_grad():
        model.weight.fill_(2.0)  # loaded after penalize
    for _ in range(3):
        step(model, optimizer)

    assert (model.weight == 2.0).all()
    assert handle.penalty() == 0.0


def test_gradients_may_be_accumulated_and_clipped() -> None:
    model, other = linear(), linear()
    optimizer, whole = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(other.parameters(), 0.1)
    poise.torch.penalize(optimizer, model, poise.L1(0.2))
    poise.torch.penalize(whole, other, poise.L1(0.2))
    for _ in range(4):
        optimizer.zero_grad()
        for part in (slice(0, 20), slice(20, 40)):
            (torch.nn.functional.mse_loss(model(X[part]), Y[part]) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        step(other, whole)

    torch.testing.assert_close(model.weight, other.weight)
