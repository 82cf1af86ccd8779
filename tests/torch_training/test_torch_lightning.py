"""poise.torch.lightning: weights as in a loop by hand, logs as computed by hand, strengths as by the law, resuming."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

import poise
import poise.torch
from poise.torch.lightning import PenaltyLogger, TargetSparsity

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated:FutureWarning"),
]

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] - X[:, 1:2]
EPOCHS = 3


class Batches:
    """Four batches in a fixed order, which continue where a checkpoint was saved."""

    def __init__(self) -> None:
        self.done = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        pairs = list(zip(X.split(8), Y.split(8), strict=True))
        for number in range(self.done % 4, 4):
            self.done = number + 1
            yield pairs[number]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def loss_of(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (net(x) - y).square().mean()


def optimizer_of(net: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.02)


class Steps(torch.nn.Module):
    """A module of Lightning, for both of its packages."""

    penalties: poise.torch.PenaltyHandle
    log: Callable[..., None]

    def __init__(self, rules: Any = None, loss: str | None = "train_loss", make: Callable = optimizer_of) -> None:
        super().__init__()
        self.net, self.rules, self.loss, self.make = network(), rules or poise.L1(0.05), loss, make
        self.seen: list[tuple[float, float]] = []
        """The loss and the penalty before every step."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = loss_of(self.net, *batch)
        self.seen.append((loss.item(), self.penalties.penalty()))
        if self.loss:
            self.log(self.loss, loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", loss_of(self.net, *batch))

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.net)
        self.penalties = poise.torch.penalize(optimizer, self, self.rules)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Regression(Steps, lightning.LightningModule):
    pass


class OlderRegression(Steps, pytorch_lightning.LightningModule):
    pass


class Record(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        return "record"

    @property
    def version(self) -> str:
        return "0"

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        self.logs.append(dict(metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def of(self, key: str) -> list[float]:
        return [logs[key] for logs in self.logs if key in logs]


def fit(
    model: Any, *callbacks: Any, epochs: int = EPOCHS, resume: Any = None, framework: Any = lightning, **settings: Any
) -> Record:
    record = Record()
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": saves}
    settings = {"logger": record, "num_sanity_val_steps": 0, "log_every_n_steps": 1, **quiet, **settings}
    settings.setdefault("limit_val_batches", float("check_val_every_n_epoch" in settings))
    trainer = framework.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), **settings)
    validation = Batches() if isinstance(model, Steps) else None
    trainer.fit(model, Batches(), validation, ckpt_path=resume, weights_only=True)
    return record


def weights(model: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.net.parameters()]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def zeros(tensors: list[torch.Tensor]) -> float:
    """The share of zeros among the entries of matrices."""
    entries = torch.cat([tensor.flatten() for tensor in tensors if tensor.ndim > 1])
    return float((entries == 0).double().mean())


@pytest.fixture(autouse=True)
def _leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("accumulated", "clip", "make"),
    [
        (1, None, optimizer_of),
        (2, None, optimizer_of),
        (1, 0.1, optimizer_of),
        (2, 0.1, lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)),
    ],
    ids=["plain", "accumulation", "clipping", "all-SGD"],
)
def test_weights_are_those_of_a_loop_by_hand(accumulated: int, clip: float | None, make: Callable) -> None:
    """The learning rate falls in every epoch; a closure computes the gradients in Lightning."""
    model = Regression([poise.Rule("**.0.weight", poise.L1(0.1)), poise.Rule("**.2.weight", poise.L2(0.1))], make=make)
    fit(model, PenaltyLogger(), accumulate_grad_batches=accumulated, gradient_clip_val=clip)

    net = network()
    optimizer = make(net)
    poise.torch.penalize(optimizer, net, [poise.Rule("0.weight", poise.L1(0.1)), poise.Rule("2.weight", poise.L2(0.1))])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
    for _ in range(EPOCHS):
        for number, (x, y) in enumerate(Batches()):
            (loss_of(net, x, y) / accumulated).backward()
            if (number + 1) % accumulated == 0:
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()

    assert_same(weights(model), [weight.detach() for weight in net.parameters()])
    assert 0 < zeros(weights(model)) < 1


# ---------------------------------------------------------------- PenaltyLogger


def test_epoch_has_the_penalty_at_its_end_next_to_the_loss() -> None:
    model = Regression([poise.Rule("net.0.weight", poise.L1(0.1)), poise.Rule("net.2.*", poise.L2(0.2), name="head")])
    ends: list[tuple[float, float]] = []

    class AtEnd(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            first, _, last, bias = weights(pl_module)
            ends.append((0.1 * float(first.abs().sum()), 0.2 * float(last.square().sum() + bias.square().sum())))

    record = fit(model, PenaltyLogger(per_rule=True), AtEnd())

    assert record.of("penalty/net.0.weight") == pytest.approx([first for first, _ in ends])
    assert record.of("penalty/head") == pytest.approx([second for _, second in ends])
    assert record.of("penalty") == pytest.approx([sum(end) for end in ends])
    losses = [sum(loss for loss, _ in model.seen[4 * epoch : 4 * epoch + 4]) / 4 for epoch in range(EPOCHS)]
    assert record.of("train_loss") == pytest.approx(losses)
    totals = [loss + sum(end) for loss, end in zip(losses, ends, strict=True)]
    assert record.of("total_loss") == pytest.approx(totals)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_step_has_the_penalty_at_the_weights_of_its_loss(accumulated: int) -> None:
    model = Regression()

    record = fit(model, PenaltyLogger(on_step=True), accumulate_grad_batches=accumulated)

    penalties = record.of("penalty_step")
    totals = record.of("total_loss_step")
    seen = model.seen[accumulated - 1 :: accumulated]  # a logger gets what is logged when the weights change
    assert penalties == pytest.approx([penalty for _, penalty in seen])
    assert totals == pytest.approx([loss + penalty for loss, penalty in seen])
    assert len(record.of("penalty")) == EPOCHS


def test_another_metric_can_be_the_loss() -> None:
    record = fit(Regression(), PenaltyLogger(loss="val_loss"), check_val_every_n_epoch=1)

    for total, loss, penalty in zip(*map(record.of, ("total_loss", "val_loss", "penalty")), strict=True):
        assert total == pytest.approx(loss + penalty)


def test_missing_metric_is_reported_once() -> None:
    message = r"logs no total_loss, because the metric 'train_loss' has no new value .* The module logs 'my_loss'\."
    with pytest.warns(UserWarning, match=message) as warned:
        record = fit(Regression(loss="my_loss"), PenaltyLogger())

    assert len([warning for warning in warned if "total_loss" in str(warning.message)]) == 1
    assert record.of("total_loss") == []
    assert len(record.of("penalty")) == EPOCHS


def test_without_a_metric_no_total_is_logged() -> None:
    record = fit(Regression(loss=None), PenaltyLogger(loss=None))

    assert {key for logs in record.logs for key in logs} == {"penalty", "epoch"}


def test_value_of_an_earlier_epoch_is_not_used() -> None:
    with pytest.warns(UserWarning, match="the metric 'val_loss' has no new value"):
        record = fit(Regression(), PenaltyLogger(loss="val_loss"), check_val_every_n_epoch=2)

    assert len(record.of("total_loss")) == EPOCHS // 2


def test_other_callbacks_can_monitor_the_total_loss(tmp_path: Path) -> None:
    stop = EarlyStopping("total_loss", mode="min", patience=1, min_delta=100.0)
    best = ModelCheckpoint(tmp_path, monitor="penalty", mode="min", save_top_k=1)

    record = fit(Regression(), stop, best, PenaltyLogger())

    assert len(record.of("total_loss")) == 2
    assert best.best_model_score is not None
    assert float(best.best_model_score) == pytest.approx(min(record.of("penalty")))


class SeveralOptimizers(lightning.LightningModule):
    """A module with two penalized optimizers and, between them, one without penalties."""

    def __init__(self, names: list[str | None]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.parts, self.names = torch.nn.ModuleList(torch.nn.Linear(6, 1) for _ in range(3)), names

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers: Any = self.optimizers()
        losses = [loss_of(part, *batch) for part in self.parts]
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("train_loss", losses[0].detach(), on_epoch=True, on_step=False)

    def configure_optimizers(self) -> Any:
        optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in self.parts]
        for number, name in zip([0, 2], self.names, strict=True):
            rules = [poise.Rule("**.weight", poise.L1(0.1), name=name), poise.Rule(f"parts.{number}.bias", poise.L2())]
            poise.torch.penalize(optimizers[number], self, rules)
        return optimizers


def test_names_of_several_optimizers_do_not_collide() -> None:
    model: Any = SeveralOptimizers([None, None])
    record = fit(model, PenaltyLogger(per_rule=True, on_step=True), epochs=1)

    last = record.logs[-1]
    keys = {"penalty/**.weight/0", "penalty/**.weight/2", "penalty/parts.0.bias", "penalty/parts.2.bias"}
    assert {key for key in last if key.startswith("penalty/")} == keys
    assert last["penalty"] == pytest.approx(sum(last[key] for key in keys))
    assert last["total_loss"] == pytest.approx(last["train_loss"] + last["penalty"])
    for number in (0, 2):
        expected = 0.1 * model.parts[number].weight.abs().sum().item()
        assert last[f"penalty/**.weight/{number}"] == pytest.approx(expected)


def test_strengths_of_several_optimizers_are_adapted() -> None:
    targets = {"first": 0.5, "second": 0.25}
    record = fit(SeveralOptimizers([*targets]), *(TargetSparsity(*target) for target in targets.items()), epochs=2)

    for name, target in targets.items():
        share = record.of(f"zeros/{name}")[0]
        assert record.of(f"strength/{name}") == pytest.approx([0.1, 0.1 * factor(share, target, 1.5)])


def test_handle_is_found_through_the_wrapped_optimizer() -> None:
    model = Regression()
    seen = []

    class Look(lightning.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            seen.append(poise.torch.handle_of(pl_module.optimizers()))

    fit(model, Look(), epochs=1)

    assert seen == [model.penalties]
    model.penalties.remove()
    assert poise.torch.handle_of(model.penalties.optimizer) is None
    with pytest.raises(TypeError, match="optimizer must be a torch.optim.Optimizer, got str"):
        poise.torch.handle_of("adam")  # type: ignore[arg-type]


# ---------------------------------------------------------------- TargetSparsity


def factor(share: float, target: float, growth: float) -> float:
    return growth ** ((target - share) / (target if share < target else 1 - target))


def test_strength_of_every_epoch_follows_from_the_shares() -> None:
    model = Regression(poise.L1(0.02))
    record = fit(model, TargetSparsity("kernels", 0.4, growth=1.3), epochs=25)

    shares, strength = record.of("zeros/kernels"), 0.02
    assert max(shares) > 0.4 > shares[0]
    for share, logged in zip(shares, record.of("strength/kernels"), strict=True):
        assert logged == pytest.approx(strength)
        strength *= factor(share, 0.4, 1.3)
    assert model.penalties.strength["kernels"] == pytest.approx(strength)
    assert shares[-1] == pytest.approx(zeros(weights(model)))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_strength_is_adapted_after_every_few_steps(accumulated: int) -> None:
    model = Regression(poise.L1(1e-6))
    every = TargetSparsity("kernels", 0.5, growth=2.0, every=2)
    record = fit(model, every, accumulate_grad_batches=accumulated)

    count = EPOCHS * 4 // accumulated // 2
    assert model.penalties.strength["kernels"] == pytest.approx(1e-6 * 2.0**count)
    assert sorted(set(record.of("strength/kernels"))) == pytest.approx([1e-6 * 2.0**number for number in range(count)])


@pytest.mark.parametrize(
    ("saved", "every"),
    [("epoch-end", None), ("validation", None), ("mid-epoch", None), ("last-step", None), ("validation", 2)],
)
def test_resumed_training_ends_with_the_same_weights(saved: str, every: int | None, tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "epoch-end": {"every_n_epochs": 2, "save_on_train_epoch_end": True},
        "validation": {"every_n_epochs": 2},
        "mid-epoch": {"every_n_train_steps": 6},
        "last-step": {"every_n_train_steps": 8},
    }
    settings = {"check_val_every_n_epoch": 1} if saved == "validation" else {}

    def train(resume: Path | None = None) -> Any:
        model = Regression(poise.L1(0.02))
        save = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **kinds[saved])
        fit(model, TargetSparsity("kernels", 0.5, every=every), PenaltyLogger(), save, resume=resume, **settings)
        return model

    whole = train()
    step = 6 if saved == "mid-epoch" else 8
    resumed = train(tmp_path / f"step={step}.ckpt")

    assert len(resumed.seen) == EPOCHS * 4 - step
    assert_same(weights(resumed), weights(whole))
    assert resumed.penalties.strength["kernels"] == whole.penalties.strength["kernels"]
    assert resumed.penalties.strength.steps == whole.penalties.strength.steps == EPOCHS * 4
    assert zeros(weights(whole)) > 0


def test_callbacks_work_in_the_package_pytorch_lightning() -> None:
    model, older = Regression(), OlderRegression()
    callbacks = [PenaltyLogger(per_rule=True, on_step=True), TargetSparsity("kernels", 0.5)]

    fit(model, *callbacks)
    fit(older, *callbacks, framework=pytorch_lightning, logger=False)

    assert_same(weights(model), weights(older))


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("rules", "update", "rule", "error", "message"),
    [
        (
            poise.L2(0.1),
            "auto",
            "kernels",
            ValueError,
            "TargetSparsity.'kernels'.: this rule cannot produce exact zeros",
        ),
        (
            poise.L1(0.0),
            "auto",
            "kernels",
            ValueError,
            "a strength of 0 cannot grow by a factor. Start with a small one",
        ),
        (poise.L1(0.1), "coupled", "kernels", ValueError, "update='coupled' sets nothing to exactly zero"),
        (poise.L1(0.1, factors=0.0), "auto", "kernels", ValueError, "frozen or have the factor 0"),
        (poise.L1(0.1), "auto", "head", KeyError, r"No rule is named 'head'. The rules are \['kernels'\]"),
    ],
)
def test_rule_that_cannot_be_brought_to_a_share_of_zeros_is_refused(
    rules: Any, update: str, rule: str, error: type[Exception], message: str
) -> None:
    class Module(Regression):
        def configure_optimizers(self) -> Any:
            optimizer = optimizer_of(self.net)
            poise.torch.penalize(optimizer, self, rules, update)
            return optimizer

    with pytest.raises(error, match=message):
        fit(Module(), TargetSparsity(rule, 0.5))


def test_rule_of_several_optimizers_is_refused() -> None:
    message = r"TargetSparsity\('\*\*\.weight'\): 2 optimizers have a rule of this name. Give the rules different names"
    with pytest.raises(ValueError, match=message):
        fit(SeveralOptimizers([None, None]), TargetSparsity("**.weight", 0.5))


@pytest.mark.parametrize("callback", [PenaltyLogger(), TargetSparsity("kernels", 0.5)])
def test_training_without_penalties_is_refused(callback: lightning.Callback) -> None:
    class Unpenalized(Regression):
        def configure_optimizers(self) -> Any:
            return optimizer_of(self.net)

    message = f"{type(callback).__name__} found no optimizer with penalties. Call poise.torch.penalize"
    with pytest.raises(ValueError, match=message):
        fit(Unpenalized(), callback)
