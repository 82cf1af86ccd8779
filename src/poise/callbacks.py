"""Callbacks that log penalties and forces, restore exact zeros, and adapt a strength to a target sparsity."""

import hashlib
import math
import warnings
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from poise.diagnostics.force_balance import build_penalized, current_values, current_weights, forces, penalized_of
from poise.optimizer.penalized import PenalizedOptimizer
from poise.optimizer.records import PenaltyRecord
from poise.optimizer.target_sparsity import check_adaptable, check_target, next_strength

Logs = dict[str, Any] | None


class PenalizedCallback(keras.callbacks.Callback):
    """The base class of callbacks that read a `poise.PenalizedOptimizer`.

    Args:
        optimizer: `poise.PenalizedOptimizer` to read. Default: None (the model's optimizer).
    """

    def __init__(self, optimizer: Any = None) -> None:
        super().__init__()
        self.optimizer = optimizer

    @property
    def penalized(self) -> PenalizedOptimizer:
        """The `PenalizedOptimizer`."""
        return penalized_of(self.model, self.optimizer)


class PenaltyLogger(PenalizedCallback):
    """Log the penalty and the total loss of every epoch.

    The model's `loss` and `val_loss` are prediction losses, without a penalty. This callback adds these keys to the
    logs of an epoch:

    - `penalty`: mean of the penalty over the batches of the epoch, weighted by rows as Keras weights `loss`.
    - `total_loss`: `loss + penalty`.
    - `val_total_loss`, with validation data: `val_loss` plus the penalty at the end of the epoch, where Keras measures
      `val_loss`.

    Put it first in `callbacks`, so that the callbacks after it, the progress bar and `History` see the keys. An
    `EarlyStopping` or `ModelCheckpoint` that monitors one of them needs `mode="min"`.

    All batches except the last one are assumed to have the same size. If a custom `train_step` does not log `loss`,
    there is no `total_loss`, and a warning is issued.

    Args:
        per_rule: Whether to also log `penalty/<name>` for every rule. Default: False.
        optimizer: `poise.PenalizedOptimizer` whose penalties are logged. Default: None (the model's optimizer).

    Examples:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.01)), loss="mse")
        >>> history = model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=[poise.PenaltyLogger()])
        >>> sorted(history.history)
        ['loss', 'penalty', 'total_loss']
    """

    def __init__(self, per_rule: bool = False, *, optimizer: Any = None) -> None:
        super().__init__(optimizer)
        self.per_rule = per_rule
        self._rows_of_batch: float | None = None
        self._rows_of_epoch: float | None = None
        self._has_warned = False

    def on_train_begin(self, logs: Logs = None) -> None:
        if self.penalized.keep_values():
            self.model.make_train_function(force=True)
        self._rows_of_batch = None
        self._has_warned = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.penalized.reset_values()
        self._rows_of_epoch = None

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self._rows_of_batch is None and batch > 0:
            rows = self._rows_so_far()
            self._rows_of_batch = rows and rows / batch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        steps = self.params.get("steps")
        if steps is not None and batch >= steps - 1:  # an evaluation that follows resets the count
            self._rows_of_epoch = self._rows_so_far()

    def on_test_begin(self, logs: Logs = None) -> None:
        if self._rows_of_epoch is None:
            self._rows_of_epoch = self._rows_so_far()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = {} if logs is None else logs
        optimizer = self.penalized
        now = current_values(optimizer, self.model)
        # Without a step, nothing was recorded and no weight changed: loss scaling skipped all steps, or all variables
        # are frozen, and then TensorFlow does not even build the optimizer.
        record = optimizer.penalty_record() if optimizer.built else None
        means = self._means(record) if record is not None and record.steps else list(now.values())
        logs["penalty"] = sum(means)
        if "loss" in logs:
            logs["total_loss"] = logs["loss"] + logs["penalty"]
        elif not self._has_warned:
            self._has_warned = True
            keys = ", ".join(repr(key) for key in logs if key != "penalty") or "nothing"
            warnings.warn(
                f"The train_step of {self.model.name!r} does not log 'loss' (it logs {keys}), so PenaltyLogger cannot "
                "log total_loss. Return {'loss': ...} from train_step.",
                stacklevel=2,
            )
        if "val_loss" in logs:
            logs["val_total_loss"] = logs["val_loss"] + sum(now.values())
        if self.per_rule:
            logs.update({f"penalty/{name}": mean for name, mean in zip(now, means, strict=True)})

    def _means(self, record: PenaltyRecord) -> list[float]:
        """Return the mean of the value of every rule over the rows of the epoch."""
        steps = record.steps
        rows = self._rows_of_epoch or self._rows_so_far()
        full_batch = self._rows_of_batch
        # With fewer steps than batches, loss scaling skipped some of them, and it is not known which.
        if steps < 2 or not rows or not full_batch or steps < math.ceil(rows / full_batch - 1e-3):
            return [float(total) / steps for total in record.total]
        last_batch = rows - (steps - 1) * full_batch
        if not 0 < last_batch <= full_batch * (1 + 1e-3):  # an evaluation in the middle of the epoch changed the count
            return [float(total) / steps for total in record.total]
        return [
            float(full_batch * (total - end) + last_batch * end) / rows
            for total, end in zip(record.total, record.last, strict=True)
        ]

    def _rows_so_far(self) -> float | None:
        """Return the number of rows in the model's mean of the loss since its last reset, None if it has no mean."""
        tracker = next((metric for metric in self.model.metrics if metric.name == "loss"), None)
        count = getattr(tracker, "count", None)
        return None if count is None else float(ops.convert_to_numpy(count))


class ForceHistory(PenalizedCallback):
    """Record the forces of every epoch: `poise.forces(model)`, averaged over the observed steps of the epoch.

    Args:
        optimizer: `poise.PenalizedOptimizer` whose forces are recorded. Default: None (the model's optimizer).

    Attributes:
        table: DataFrame with one row per epoch and variable: `epoch` (from 0) and the columns of `poise.forces`.

    Raises:
        ValueError: When training starts, if the optimizer was created with `observe_every=0`.

    Examples:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.01), observe_every=1), loss="mse")
        >>> recorded = poise.ForceHistory()
        >>> history = model.fit(np.ones((4, 2)), np.ones(4), epochs=3, verbose=0, callbacks=[recorded])
        >>> recorded.table["epoch"].tolist()
        [0, 1, 2]
    """

    def __init__(self, *, optimizer: Any = None) -> None:
        super().__init__(optimizer)
        self._tables: list[pd.DataFrame] = []

    @property
    def table(self) -> pd.DataFrame:
        """The forces of all epochs so far."""
        return pd.concat(self._tables, ignore_index=True) if self._tables else pd.DataFrame()

    def on_train_begin(self, logs: Logs = None) -> None:
        self._tables = []
        if not self.penalized.observe_every:
            raise ValueError(
                "ForceHistory needs an optimizer that records forces. Compile with "
                "poise.PenalizedOptimizer(..., observe_every=10)."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.penalized.reset_forces()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.penalized
        if optimizer.built and optimizer.force_record().samples:
            table = forces(self.model, optimizer=self.optimizer)
            table.insert(0, "epoch", epoch)
            self._tables.append(table)


class RestoreZeros(PenalizedCallback):
    """Restore exact zeros in weights that are averaged over training (`use_ema=True`).

    At the end of `fit`, Keras replaces every weight by its average, and an entry of the average is zero only if the
    weight was zero in every step. This callback then sets to zero every penalized entry that was zero at the end of the
    last epoch. All other entries keep their averages. If another callback restores the weights or averages of an
    earlier epoch, such as `EarlyStopping(restore_best_weights=True)`, the zeros of that epoch are restored.

    With `keras.callbacks.SwapEMAWeights(swap_on_epoch=True)`, where `EarlyStopping` restores averages, put this
    callback after `EarlyStopping`. A model that `ModelCheckpoint` saves during training contains the current weights,
    with their exact zeros; with `swap_on_epoch=True` it contains the averages instead, without these zeros. With
    `ema_overwrite_frequency`, the last step must be one that does not overwrite the weights.

    Args:
        optimizer: `poise.PenalizedOptimizer` that averages the weights. Default: None (the model's optimizer).

    Warns:
        UserWarning: When training ends with weights that differ from the weights at the end of every epoch, so their
            zeros are not known.

    Raises:
        ValueError: When training starts, if the weights are not averaged.

    Examples:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> averaged = keras.optimizers.SGD(0.1, use_ema=True)
        >>> model.compile(poise.PenalizedOptimizer(averaged, poise.L1(5.0), update="proximal"), loss="mse")
        >>> history = model.fit(np.ones((64, 2)), np.ones(64), verbose=0, callbacks=[poise.RestoreZeros()])
        >>> int(np.count_nonzero(model.get_weights()[0]))
        0
    """

    def __init__(self, *, optimizer: Any = None) -> None:
        super().__init__(optimizer)
        self._zeros: dict[bytes, list[np.ndarray]] = {}
        self._at_last_step: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._zeros = {}
        if not self.penalized.use_ema:
            raise ValueError(
                "RestoreZeros restores zeros in averaged weights, but this optimizer does not average weights. Use an "
                "inner optimizer such as keras.optimizers.Adam(use_ema=True), or remove the callback: weights that are "
                "not averaged keep their zeros."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._at_last_step = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        steps = self.params.get("steps")
        if steps is not None and batch >= steps - 1:  # SwapEMAWeights may drop them at the end of the epoch
            self._at_last_step = [ops.convert_to_numpy(variable) == 0 for variable in self._variables()]

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.penalized
        averages = [average for target in optimizer.targets for average in optimizer.averages_of(target)]
        pairs = [[ops.convert_to_numpy(v) for v in variables] for variables in (self._variables(), averages)]
        are_zero = self._at_last_step
        if are_zero is None:
            # SwapEMAWeights may have exchanged weights and averages. Where an average is zero, so is the weight.
            are_zero = [(weight == 0) | (average == 0) for weight, average in zip(*pairs, strict=True)]
        packed = [np.packbits(is_zero) for is_zero in are_zero]
        self._zeros.update({_digest(arrays): packed for arrays in pairs})

    def on_train_end(self, logs: Logs = None) -> None:
        variables = self._variables()
        arrays = [ops.convert_to_numpy(variable) for variable in variables]
        packed = self._zeros.get(_digest(arrays))
        if packed is None:
            if self._zeros:
                warnings.warn(
                    "RestoreZeros cannot restore zeros: the weights at the end of training match neither the averages "
                    "nor the weights at the end of any epoch. Put RestoreZeros before callbacks that change weights.",
                    stacklevel=2,
                )
            return
        for variable, array, bits in zip(variables, arrays, packed, strict=True):
            is_zero = np.unpackbits(bits, count=array.size).reshape(array.shape).astype(bool)
            variable.assign(np.where(is_zero, np.zeros_like(array), array))

    def _variables(self) -> list[Any]:
        optimizer = self.penalized
        return [variable for target in optimizer.targets for variable in optimizer.variables_of(target)]


def _digest(arrays: list[np.ndarray]) -> bytes:
    """Return a digest by which weights are recognized."""
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


class TargetSparsity(PenalizedCallback):
    """Adapt the strength of a rule until a target share of its entries or groups is exactly zero.

    After every epoch, the strength is multiplied by a factor. With the share of zeros z and the target t, the factor is
    growth^((t − z)/t) below the target and growth^((t − z)/(1 − t)) above it: `growth` while nothing is zero, 1 at the
    target, and 1/growth if everything is zero. The share may stay above the target, because dead units may never
    become nonzero again.

    The share counts groups (units, inputs) for `GroupLasso` and `JointGroupLasso`, and single entries for all other
    penalties, over all variables of the rule. Entries with the factor 0 are not penalized and not counted.

    The logs of an epoch get `zeros/<rule>` and `strength/<rule>`. Put this callback first in `callbacks`, so that other
    callbacks see these keys, and `BackupAndRestore` last, so that it saves the new strength.

    Args:
        rule: Name of the rule.
        target: Float between 0 and 1, target share of zeros.
        growth: Float > 1, largest factor by which the strength grows per epoch. A smaller value takes more epochs to
            find the strength, but overshoots less. Default: 1.5.
        optimizer: `poise.PenalizedOptimizer` that has the rule. Default: None (the model's optimizer).

    Raises:
        TypeError: If `target` is not a number.
        ValueError: If `target` or `growth` is out of its range; and, when training starts, if the rule sets nothing to
            exactly zero (a smooth penalty, `update="coupled"`, or all of its variables are frozen), follows a schedule,
            or starts with the strength 0.
        KeyError: When training starts, if there is no rule of this name.

    Examples:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), poise.L1(0.01)), loss="mse")
        >>> half = poise.TargetSparsity("kernels", 0.5)
        >>> history = model.fit(x, x[:, :4].sum(axis=1), epochs=40, verbose=0, callbacks=[half])
        >>> history.history["zeros/kernels"][-1]
        0.5
    """

    def __init__(self, rule: str, target: float, growth: float = 1.5, *, optimizer: Any = None) -> None:
        super().__init__(optimizer)
        check_target(target, growth)
        self.rule = rule
        self.target = float(target)
        self.growth = growth

    def on_train_begin(self, logs: Logs = None) -> None:
        optimizer = build_penalized(self.model, self.optimizer)
        strength = optimizer.strength[self.rule]
        rule = next(rule for rule in optimizer.rules if rule.name == self.rule)
        check_adaptable(rule, strength, optimizer.update)
        who, name = f"TargetSparsity({self.rule!r})", type(rule.penalty).__name__
        sizes = self._sizes(optimizer)
        if any(size is None for size in sizes):
            raise ValueError(
                f"{who}: {name} sets nothing to exactly zero. Use a penalty that does, such as poise.L1 or "
                "poise.GroupLasso."
            )
        if not sum(map(len, sizes)):
            raise ValueError(
                f"{who}: all variables of this rule are frozen or have the factor 0, so it has nothing to set to zero. "
                "Unfreeze a variable, or choose a different rule."
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.penalized
        share, strength = self._share(optimizer), optimizer.strength[self.rule]
        if logs is not None:
            logs[f"zeros/{self.rule}"] = share
            logs[f"strength/{self.rule}"] = strength
        optimizer.strength[self.rule] = next_strength(strength, share, self.target, self.growth)

    def _share(self, optimizer: PenalizedOptimizer) -> float:
        """Return the share of zeros."""
        sizes = [ops.convert_to_numpy(size) for size in self._sizes(optimizer)]
        return float(np.mean(np.concatenate(sizes) == 0))

    def _sizes(self, optimizer: PenalizedOptimizer) -> list[Any]:
        """Return, per target of the rule, the sizes that its penalty can set to zero, or None."""
        number = [rule.name for rule in optimizer.rules].index(self.rule)
        weights = current_weights(optimizer)
        return [
            penalty.sizes(weights[target.index])
            for target in optimizer.targets
            for rule, penalty in target.penalties
            if rule == number
        ]
