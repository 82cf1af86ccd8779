"""Callbacks for the Trainer of Transformers: log the penalty next to the loss, and adapt a strength to a target share.

Add the penalties before `trainer.train()`: `poise.torch.penalize(trainer.create_optimizer(), model, rules)`. The
callbacks find them through the optimizer of the trainer.
"""

from typing import Any

from transformers import TrainerCallback

from poise.torch.callbacks import Handles, StrengthControl, find_handles, penalty_logs

HOW = "Call poise.torch.penalize(trainer.create_optimizer(), model, rules) before trainer.train()."


class PenaltyLogger(TrainerCallback):
    """Log the penalty and the total loss next to the loss.

    The `loss` and `eval_loss` that the Trainer logs are prediction losses, without a penalty. This callback adds:

    - `penalty`, next to `loss`: the penalty at the current weights.
    - `total_loss`, next to `loss`: `loss + penalty`.
    - `eval_total_loss`, next to `eval_loss`: `eval_loss + penalty`. `metric_for_best_model` can name it.

    The keys are in `trainer.state.log_history`. The Trainer places callbacks that report, such as TensorBoard, before
    yours. To report the keys, set `report_to="none"` and pass both: `callbacks=[PenaltyLogger(),
    TensorBoardCallback()]`.

    Args:
        per_rule: Whether to also log `penalty/<rule>` for every rule. Default: False.

    Raises:
        ValueError: When training starts, if the optimizer has no penalties.

    Examples:
        >>> import poise.torch.transformers
        >>> logger = poise.torch.transformers.PenaltyLogger()  # for transformers.Trainer(callbacks=[logger])
    """

    def __init__(self, per_rule: bool = False) -> None:
        self.per_rule = per_rule
        self._handles: Handles = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._handles = find_handles([kwargs["optimizer"]], "PenaltyLogger", HOW)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        losses = [
            name for name in logs or {} if name == "loss" or (name.startswith("eval_") and name.endswith("_loss"))
        ]
        if not losses or not self._handles:  # the summary at the end, or an evaluation without training
            return
        values = penalty_logs(self._handles, self.per_rule)
        added = values if "loss" in losses else {}
        totals = {f"{name.removesuffix('loss')}total_loss": logs[name] + values["penalty"] for name in losses}
        _add_to_logs({**added, **totals}, logs, state)


class TargetSparsity(TrainerCallback):
    """Adapt the strength of a rule until a target share of its entries or groups is exactly zero.

    The strength grows while the share of zeros is below the target, and shrinks while it is above: after every epoch,
    or every `every` steps. With the share z and the target t, it is multiplied by growth^((t − z)/t) below the target
    and by growth^((t − z)/(1 − t)) above it. The share may stay above the target, because dead units may never become
    nonzero again.

    The share counts groups (units, inputs) for `GroupLasso` and `JointGroupLasso`, and single entries for all other
    penalties, over all parameters of the rule. Entries whose
    penalty factor (`factors=`) is 0 are not counted.

    The callback adds `zeros/<rule>` and `strength/<rule>`, as of the last step, next to `loss` in the logs. The new
    strength is part of the checkpoints, because the state of the optimizer holds it.

    Args:
        rule: Name of the rule.
        target: Float between 0 and 1, target share of zeros.
        growth: Float > 1, largest factor by which the strength grows at once. A smaller value takes longer to find the
            strength, but overshoots less. Default: 1.5.
        every: Int >= 1, number of steps of the optimizer between two changes of the strength. Use it if you train for a
            few epochs only. Default: None (an epoch).

    Raises:
        TypeError: If `target` is not a number, or `every` not an int.
        ValueError: If `target`, `growth` or `every` is out of its range; and, when training starts, if the optimizer
            has no penalties, or the rule sets nothing to exactly zero (a smooth penalty, `update="coupled"`, or all of
            its parameters are frozen), follows a schedule, or starts with the strength 0.
        KeyError: When training starts, if there is no rule of this name.

    Examples:
        >>> import poise.torch.transformers
        >>> half = poise.torch.transformers.TargetSparsity("kernels", 0.5, every=10)
    """

    def __init__(self, rule: str, target: float, growth: float = 1.5, every: int | None = None) -> None:
        self._control = StrengthControl(rule, target, growth, every)
        self._last_step: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._control.start(find_handles([kwargs["optimizer"]], "TargetSparsity", HOW))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last_step = self._control.adapt(at_epoch_end=float(state.epoch).is_integer())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._control.every is None:  # the last step was not known to be the last one if the data have no length
            self._last_step = self._control.adapt(at_epoch_end=True) or self._last_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            _add_to_logs(self._last_step or self._control.measure(), logs, state)


def _add_to_logs(values: dict[str, float], logs: dict[str, Any], state: Any) -> None:
    """Add values to the logs, and to the copy of the logs that the Trainer has put into the history."""
    logs.update(values)
    if state.log_history and state.log_history[-1]["step"] == state.global_step:
        state.log_history[-1].update(values)
