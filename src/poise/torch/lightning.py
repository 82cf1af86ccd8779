"""Callbacks for Lightning: log the penalty next to the loss, and adapt a strength to a target share of zeros.

Add the penalties in `configure_optimizers`: create the optimizer and call
`poise.torch.penalize(optimizer, self, rules)`. The callbacks find them through the optimizers of the trainer.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from poise.torch.callbacks import Handles, StrengthControl, find_handles, penalty_logs

if TYPE_CHECKING:
    from lightning import Callback
else:
    try:
        from lightning import Callback
    except ModuleNotFoundError:  # only the older of the two packages is installed
        from pytorch_lightning import Callback

HOW = "Call poise.torch.penalize(optimizer, self, rules) in configure_optimizers."


class PenaltyLogger(Callback):
    """Log the penalty and the total loss of every epoch.

    The loss that `training_step` returns is the prediction loss, without a penalty. This callback logs at the end of
    every epoch:

    - `penalty`: the penalty at the weights at the end of the epoch, over all optimizers.
    - `total_loss`: the metric `loss` plus `penalty`.

    Callbacks such as `EarlyStopping` and `ModelCheckpoint` can monitor both.

    Args:
        per_rule: Whether to also log `penalty/<rule>` for every rule. If several optimizers have a rule of the same
            name, the key is `penalty/<rule>/<number of the optimizer>`. Default: False.
        on_step: Whether to also log `penalty_step` and `total_loss_step` for every batch: the penalty at the weights
            with which the loss of the batch was computed. They are measured in every batch and logged every
            `log_every_n_steps` steps. Default: False.
        loss: Name of the prediction loss among the metrics that `training_step` or `validation_step` logs. If None, the
            total loss per epoch is not logged. Default: `"train_loss"`.

    Warns:
        UserWarning: If there is no new value of the metric `loss` at the end of an epoch.

    Raises:
        ValueError: When training starts, if no optimizer has penalties.

    Examples:
        >>> import poise.torch.lightning
        >>> logger = poise.torch.lightning.PenaltyLogger()  # for lightning.Trainer(callbacks=[logger])
    """

    def __init__(self, per_rule: bool = False, on_step: bool = False, loss: str | None = "train_loss") -> None:
        super().__init__()
        self.per_rule, self.on_step, self.loss = per_rule, on_step, loss
        self._handles: Handles = {}
        self._previous: Any = None
        self._at_batch_start: dict[str, float] = {}
        self._has_warned = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._handles = find_handles(trainer.optimizers, "PenaltyLogger", HOW)
        self._has_warned = False

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._previous = trainer.callback_metrics.get(self.loss)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.on_step:
            self._at_batch_start = penalty_logs(self._handles, self.per_rule)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.on_step:
            return
        logs: dict[str, Any] = dict(self._at_batch_start)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:  # Lightning has divided it by the number of accumulated batches
            logs["total_loss"] = loss * trainer.accumulate_grad_batches + logs["penalty"]
        logs = {f"{name}_step": value for name, value in logs.items()}
        pl_module.log_dict(logs, on_step=True, on_epoch=False, batch_size=1)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        logs = penalty_logs(self._handles, self.per_rule)
        loss = trainer.callback_metrics.get(self.loss)
        if loss is not None and loss is not self._previous:
            logs["total_loss"] = float(loss) + logs["penalty"]
        elif self.loss is not None and not self._has_warned:
            self._has_warned = True
            logged = ", ".join(map(repr, trainer.callback_metrics)) or "nothing"
            warnings.warn(
                f"PenaltyLogger logs no total_loss, because the metric {self.loss!r} has no new value at the end of "
                f"this epoch. The module logs {logged}. Log the loss in training_step, pass its name as the argument "
                "loss, or pass loss=None.",
                stacklevel=2,
            )
        pl_module.log_dict(logs, on_step=False, on_epoch=True, sync_dist=True)


class TargetSparsity(Callback):
    """Adapt the strength of a rule until a target share of its entries or groups is exactly zero.

    The strength grows while the share of zeros is below the target, and shrinks while it is above: after every epoch,
    or every `every` steps. With the share z and the target t, it is multiplied by growth^((t − z)/t) below the target
    and by growth^((t − z)/(1 − t)) above it. The share may stay above the target, because dead units may never become
    nonzero again.

    The share counts groups (units, inputs) for `GroupLasso` and `JointGroupLasso`, and single entries for all other
    penalties, over all parameters of the rule. Entries whose
    penalty factor (`factors=`) is 0 are not counted.

    The callback logs `zeros/<rule>` and `strength/<rule>` before the strength changes. The new strength is part of the
    checkpoints, because the state of the optimizer holds it.

    Args:
        rule: Name of the rule.
        target: Float between 0 and 1, target share of zeros.
        growth: Float > 1, largest factor by which the strength grows at once. A smaller value takes longer to find the
            strength, but overshoots less. Default: 1.5.
        every: Int >= 1, number of steps of the optimizer between two changes of the strength. Default: None (an epoch).

    Raises:
        TypeError: If `target` is not a number, or `every` not an int.
        ValueError: If `target`, `growth` or `every` is out of its range; and, when training starts, if no optimizer has
            penalties, several have a rule of this name, or the rule sets nothing to exactly zero (a smooth penalty,
            `update="coupled"`, or all of its parameters are frozen), follows a schedule, or starts with the strength 0.
        KeyError: When training starts, if there is no rule of this name.

    Examples:
        >>> import poise.torch.lightning
        >>> half = poise.torch.lightning.TargetSparsity("kernels", 0.5)  # for lightning.Trainer(callbacks=[half])
    """

    def __init__(self, rule: str, target: float, growth: float = 1.5, every: int | None = None) -> None:
        super().__init__()
        self._control = StrengthControl(rule, target, growth, every)
        self._of_epoch: dict[str, float] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._control.start(find_handles(trainer.optimizers, "TargetSparsity", HOW))
        self._of_epoch = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        logs = self._control.adapt(at_epoch_end=trainer.is_last_batch)
        if self._control.every is None:
            self._of_epoch = logs
        else:
            pl_module.log_dict(logs, on_step=True, on_epoch=False, batch_size=1)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log_dict(self._of_epoch, on_step=False, on_epoch=True, sync_dist=True)
