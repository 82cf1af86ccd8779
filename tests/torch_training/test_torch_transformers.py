"""poise.torch.transformers: weights as in a loop by hand, logs as computed by hand, strengths as by the law, resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils.data import IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import poise
import poise.torch
from poise.torch.transformers import PenaltyLogger, TargetSparsity

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] - X[:, 1:2]
ROWS = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
EPOCHS = 3


class Regression(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        self.losses: list[float] = []

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.net(x)
        loss = (outputs - labels).square().mean()
        if self.training:
            self.losses.append(loss.item())
        return {"loss": loss, "logits": outputs}


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a trainer with penalties, which logs at every step and has four steps per epoch."""

    def make(
        model: torch.nn.Module,
        rules: Any,
        *callbacks: TrainerCallback,
        update: str = "auto",
        data: Any = ROWS,
        **settings: Any,
    ) -> Trainer:
        settings = {
            "num_train_epochs": EPOCHS,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            **settings,
        }
        optimizers = settings.pop("optimizers", (None, None))
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=8,
            learning_rate=0.02,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        )
        trainer = Trainer(
            model, arguments, train_dataset=data, eval_dataset=ROWS, callbacks=list(callbacks), optimizers=optimizers
        )
        trainer.remove_callback(PrinterCallback)
        if rules is not None:
            poise.torch.penalize(trainer.create_optimizer(), model, rules, update)
        return trainer

    return make


def logs_of(trainer: Trainer, key: str) -> list[float]:
    return [logs[key] for logs in trainer.state.log_history if key in logs]


def handle_of(trainer: Trainer) -> poise.torch.PenaltyHandle:
    optimizer: Any = trainer.optimizer
    handle = poise.torch.handle_of(optimizer)
    assert handle is not None
    return handle


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def zeros(tensors: list[torch.Tensor]) -> float:
    """The share of zeros among the entries of matrices."""
    entries = torch.cat([tensor.flatten() for tensor in tensors if tensor.ndim > 1])
    return float((entries == 0).double().mean())


# ---------------------------------------------------------------- training

RULES = [poise.Rule("net.0.weight", poise.L1(0.05)), poise.Rule("net.2.weight", poise.L2(0.1))]


@pytest.mark.parametrize(
    ("accumulated", "clip", "make"),
    [
        (1, 0.0, None),
        (2, 0.0, None),
        (2, 0.1, None),
        (1, 0.1, lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)),
    ],
    ids=["plain", "accumulation", "clipping", "SGD"],
)
def test_weights_are_those_of_a_loop_by_hand(
    accumulated: int, clip: float, make: Callable | None, make_trainer: Callable[..., Trainer]
) -> None:
    """The learning rate falls at every step. Without `make`, the Trainer creates the optimizer, a fused AdamW."""
    model = Regression()
    optimizers = (None if make is None else make(model), None)
    settings = {"gradient_accumulation_steps": accumulated, "max_grad_norm": clip, "lr_scheduler_type": "cosine"}
    make_trainer(model, RULES, PenaltyLogger(), optimizers=optimizers, **settings).train()

    by_hand = Regression()
    make = make or (lambda net: torch.optim.AdamW(net.parameters(), 0.02, weight_decay=0.0, fused=True))
    optimizer = make(by_hand)
    poise.torch.penalize(optimizer, by_hand, RULES)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, 0, EPOCHS * 4 // accumulated)
    for number in range(EPOCHS * 4):
        part = slice(number % 4 * 8, number % 4 * 8 + 8)
        (by_hand(X[part], Y[part])["loss"] / accumulated).backward()
        if (number + 1) % accumulated == 0:
            if clip:
                torch.nn.utils.clip_grad_norm_(by_hand.parameters(), clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

    assert_same(weights(model), weights(by_hand))
    assert 0 < zeros(weights(model)) < 1


def test_language_model_with_tied_weights_gets_exact_zeros(make_trainer: Callable[..., Trainer]) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    tokens = torch.arange(32 * 8).reshape(32, 8) % 12
    data = [{"input_ids": row, "labels": row} for row in tokens]

    trainer = make_trainer(model, poise.L1(0.01), PenaltyLogger(), data=data)
    trainer.train()

    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    expected = 0.01 * sum(weight.abs().sum().item() for weight in matrices)
    assert logs_of(trainer, "penalty")[-1] == pytest.approx(expected)
    assert 0.2 < zeros(weights(model)) < 1
    assert logs_of(trainer, "loss")[-1] < logs_of(trainer, "loss")[0]


# ---------------------------------------------------------------- PenaltyLogger


def test_logs_have_the_penalty_next_to_the_loss(make_trainer: Callable[..., Trainer]) -> None:
    seen: list[tuple[float, float]] = []

    class AtStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            first, _, last, _ = weights(kwargs["model"])
            seen.append((0.05 * float(first.abs().sum()), 0.1 * float(last.square().sum())))

    model = Regression()
    trainer = make_trainer(model, RULES, PenaltyLogger(per_rule=True), AtStep())
    trainer.train()

    assert logs_of(trainer, "penalty/net.0.weight") == pytest.approx([first for first, _ in seen])
    assert logs_of(trainer, "penalty/net.2.weight") == pytest.approx([second for _, second in seen])
    assert logs_of(trainer, "penalty") == pytest.approx([sum(pair) for pair in seen])
    assert logs_of(trainer, "loss") == pytest.approx(model.losses)
    totals = [loss + sum(pair) for loss, pair in zip(model.losses, seen, strict=True)]
    assert logs_of(trainer, "total_loss") == pytest.approx(totals)
    assert "penalty" not in trainer.state.log_history[-1]  # the summary of the training


def test_total_of_an_evaluation_can_choose_the_best_model(make_trainer: Callable[..., Trainer]) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_total_loss", "greater_is_better": False}
    model = Regression()
    trainer = make_trainer(
        model,
        poise.L1(0.05),
        PenaltyLogger(),
        eval_strategy="epoch",
        save_strategy="epoch",
        **best,
    )
    trainer.train()

    losses, totals = logs_of(trainer, "eval_loss"), logs_of(trainer, "eval_total_loss")
    penalties = logs_of(trainer, "penalty")[3::4]
    assert len(totals) == EPOCHS
    assert totals == pytest.approx([loss + penalty for loss, penalty in zip(losses, penalties, strict=True)])
    assert trainer.state.best_metric == pytest.approx(min(totals))
    assert "eval_total_loss" in trainer.evaluate()


def test_callbacks_after_it_see_the_penalty(make_trainer: Callable[..., Trainer]) -> None:
    seen: list[dict[str, float]] = []

    class Report(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            seen.append(dict(logs))

    make_trainer(Regression(), poise.L1(0.05), PenaltyLogger(), TargetSparsity("kernels", 0.5), Report()).train()

    assert {"loss", "penalty", "total_loss", "zeros/kernels", "strength/kernels"} <= set(seen[0])


def test_evaluation_without_training_is_left_as_it_is(make_trainer: Callable[..., Trainer]) -> None:
    metrics = make_trainer(Regression(), poise.L1(0.05), PenaltyLogger()).evaluate()

    assert "eval_loss" in metrics
    assert "eval_total_loss" not in metrics


def test_penalties_can_be_added_by_a_callback(make_trainer: Callable[..., Trainer]) -> None:
    """Accelerate has wrapped the optimizer there."""
    model = Regression()

    class Penalize(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            poise.torch.penalize(kwargs["optimizer"], kwargs["model"], poise.L1(0.05))

    trainer = make_trainer(model, None, Penalize(), PenaltyLogger())
    trainer.train()

    before = Regression()
    make_trainer(before, poise.L1(0.05)).train()
    assert_same(weights(model), weights(before))
    assert len(logs_of(trainer, "penalty")) == 4 * EPOCHS


# ---------------------------------------------------------------- TargetSparsity


def factor(share: float, target: float, growth: float) -> float:
    return growth ** ((target - share) / (target if share < target else 1 - target))


@pytest.mark.parametrize(("every", "steps"), [(None, 4), (3, 3)])
def test_strengths_follow_from_the_shares(every: int | None, steps: int, make_trainer: Callable[..., Trainer]) -> None:
    model = Regression()
    target = TargetSparsity("kernels", 0.4, growth=1.3, every=every)
    trainer = make_trainer(model, poise.L1(0.02), target, num_train_epochs=12)
    handle = handle_of(trainer)
    trainer.train()

    shares, strength = logs_of(trainer, "zeros/kernels"), 0.02
    assert len(shares) == 48
    assert max(shares) > 0.4 > shares[0]
    for number, (share, logged) in enumerate(zip(shares, logs_of(trainer, "strength/kernels"), strict=True)):
        assert logged == pytest.approx(strength)
        if (number + 1) % steps == 0:
            strength *= factor(share, 0.4, 1.3)
    assert handle.strength["kernels"] == pytest.approx(strength)
    assert shares[-1] == pytest.approx(zeros(weights(model)))


class Endless(IterableDataset):
    """Rows of unknown number."""

    def __iter__(self) -> Any:
        return iter(ROWS)


def test_epoch_of_unknown_length_ends_with_its_data(make_trainer: Callable[..., Trainer]) -> None:
    target = TargetSparsity("kernels", 0.5, growth=2.0)
    trainer = make_trainer(Regression(), poise.L1(1e-6), target, data=Endless(), max_steps=12)
    handle = handle_of(trainer)
    trainer.train()

    assert handle.strength["kernels"] == pytest.approx(1e-6 * 2.0**3)


@pytest.mark.parametrize(
    ("saved", "step", "every"),
    [
        ({"save_strategy": "epoch"}, 8, None),
        ({"save_steps": 4}, 8, None),
        ({"save_steps": 3}, 6, None),
        ({"save_steps": 3}, 6, 2),
    ],
    ids=["epoch-end", "last-step", "mid-epoch", "every-2"],
)
def test_resumed_training_ends_with_the_same_weights(
    saved: dict[str, Any], step: int, every: int | None, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def train(resume: Path | None = None) -> tuple[Any, Any]:
        model = Regression()
        callbacks = [TargetSparsity("kernels", 0.5, every=every), PenaltyLogger()]
        trainer = make_trainer(model, poise.L1(0.02), *callbacks, **{"save_strategy": "steps", **saved})
        handle = handle_of(trainer)
        trainer.train(resume_from_checkpoint=resume and str(resume))
        return model, handle

    whole, handle = train()
    resumed, handle_of_resumed = train(tmp_path / f"checkpoint-{step}")

    assert len(resumed.losses) == EPOCHS * 4 - step
    assert_same(weights(resumed), weights(whole))
    assert handle_of_resumed.strength["kernels"] == handle.strength["kernels"] != 0.02
    assert handle_of_resumed.strength.steps == handle.strength.steps == EPOCHS * 4
    assert zeros(weights(whole)) > 0


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize("callback", [PenaltyLogger(), TargetSparsity("kernels", 0.5)])
def test_training_without_penalties_is_refused(callback: TrainerCallback, make_trainer: Callable[..., Trainer]) -> None:
    message = f"{type(callback).__name__} found no optimizer with penalties. Call poise.torch.penalize"
    with pytest.raises(ValueError, match=message):
        make_trainer(Regression(), None, callback).train()


@pytest.mark.parametrize(
    ("rules", "update", "rule", "error", "message"),
    [
        (
            poise.L2(0.1),
            "auto",
            "kernels",
            ValueError,
            r"TargetSparsity\('kernels'\): this rule cannot produce exact zeros",
        ),
        (poise.L1(0.1), "coupled", "kernels", ValueError, "update='coupled' sets nothing to exactly zero"),
        (poise.L1(0.1), "auto", "head", KeyError, r"No rule is named 'head'. The rules are \['kernels'\]"),
    ],
)
def test_rule_that_cannot_be_brought_to_a_share_of_zeros_is_refused(
    rules: Any, update: str, rule: str, error: type[Exception], message: str, make_trainer: Callable[..., Trainer]
) -> None:
    with pytest.raises(error, match=message):
        make_trainer(Regression(), rules, TargetSparsity(rule, 0.5), update=update).train()


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_number_of_steps_is_a_positive_int(every: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"every must be an int .*, got {every!r}"):
        TargetSparsity("kernels", 0.5, every=every)
