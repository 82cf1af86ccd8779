"""What acts once an epoch: losses told apart, forces remembered, zeros kept, a strength raised to a sparsity."""

import hashlib
import math
import numbers
import warnings

import keras
import numpy as np
import pandas as pd
from keras import ops

from poise.diagnostics.force_balance import build_penalized, current_values, current_weights, forces, penalized_of
from poise.optimizer.penalized import PenalizedOptimizer
from poise.optimizer.records import PenaltyRecord
from poise.penalties.base import Schedule


class PenalizedCallback(keras.callbacks.Callback):
    """A callback that reads the `poise.PenalizedOptimizer` that it is given, or else the model's."""

    def __init__(self, optimizer=None):
        super().__init__()
        self.optimizer = optimizer

    @property
    def penalized(self) -> PenalizedOptimizer:
        return penalized_of(self.model, self.optimizer)


class PenaltyLogger(PenalizedCallback):
    """Puts the penalty and the total beside the prediction loss into the logs of every epoch.

    `loss` and `val_loss` are the prediction loss already, since the model's loss holds no penalty. This adds `penalty`
    (its mean over the epoch's batches, each weighted by its rows as Keras weights `loss`), `total_loss` = `loss` +
    `penalty`, and with validation data `val_total_loss` = `val_loss` + the penalty at the end of the epoch, where
    `val_loss` is measured. Put it first in `callbacks`: those after it, the progress bar and `History` see the keys.
    An `EarlyStopping` or `ModelCheckpoint` on one of these needs `mode="min"`.

    Batches are taken to have equal size except for the last one. If a custom `train_step` logs no `loss`, there is no
    `total_loss` either, and a warning says so.

    Args:
        per_rule: add `penalty/<name>` for every rule.
        optimizer: the `poise.PenalizedOptimizer` whose penalties are logged, by default that of the model.

    Example:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.01)), loss="mse")
        >>> history = model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=[poise.PenaltyLogger()])
        >>> sorted(history.history)
        ['loss', 'penalty', 'total_loss']
    """

    def __init__(self, per_rule=False, *, optimizer=None):
        super().__init__(optimizer)
        self.per_rule = per_rule
        self._rows_of_batch = None
        self._rows_of_epoch = None
        self._has_warned = False

    def on_train_begin(self, logs=None):
        if self.penalized.keep_values():
            self.model.make_train_function(force=True)
        self._rows_of_batch = None
        self._has_warned = False

    def on_epoch_begin(self, epoch, logs=None):
        self.penalized.reset_values()
        self._rows_of_epoch = None

    def on_train_batch_begin(self, batch, logs=None):
        if self._rows_of_batch is None and batch > 0:
            rows = self._rows_so_far()
            self._rows_of_batch = rows and rows / batch

    def on_train_batch_end(self, batch, logs=None):
        steps = self.params.get("steps")
        if steps is not None and batch >= steps - 1:  # an evaluation that follows resets the count
            self._rows_of_epoch = self._rows_so_far()

    def on_test_begin(self, logs=None):
        if self._rows_of_epoch is None:
            self._rows_of_epoch = self._rows_so_far()

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        optimizer = self.penalized
        now = current_values(optimizer, self.model)
        # Without a step nothing was recorded and the weights stayed: loss scaling skipped all, or all is frozen, where
        # TensorFlow does not even build the optimizer.
        record = optimizer.penalty_record() if optimizer.built else None
        means = self._means(record) if record is not None and record.steps else list(now.values())
        logs["penalty"] = sum(means)
        if "loss" in logs:
            logs["total_loss"] = logs["loss"] + logs["penalty"]
        elif not self._has_warned:
            self._has_warned = True
            keys = ", ".join(repr(key) for key in logs if key != "penalty") or "nothing"
            warnings.warn(
                f"The train_step of {self.model.name!r} logs no 'loss' (it logs {keys}), so that PenaltyLogger logs the "
                "penalty, but no total_loss. Return {'loss': ...} from train_step to get it.",
                stacklevel=2,
            )
        if "val_loss" in logs:
            logs["val_total_loss"] = logs["val_loss"] + sum(now.values())
        if self.per_rule:
            logs.update({f"penalty/{name}": mean for name, mean in zip(now, means, strict=True)})

    def _means(self, record: PenaltyRecord) -> list[float]:
        """The mean of each rule's value over the epoch's rows."""
        steps = record.steps
        rows = self._rows_of_epoch or self._rows_so_far()
        full = self._rows_of_batch
        # With fewer steps than batches, loss scaling skipped some, and which is not known.
        if steps < 2 or not rows or not full or steps < math.ceil(rows / full - 1e-3):
            return [float(total) / steps for total in record.total]
        rest = rows - (steps - 1) * full
        if not 0 < rest <= full * (1 + 1e-3):  # an evaluation in the middle of the epoch changed the count
            return [float(total) / steps for total in record.total]
        return [
            float(full * (total - end) + rest * end) / rows
            for total, end in zip(record.total, record.last, strict=True)
        ]

    def _rows_so_far(self):
        """How many rows the model's own mean of the loss has seen since its last reset; None if it keeps none."""
        tracker = next((metric for metric in self.model.metrics if metric.name == "loss"), None)
        count = getattr(tracker, "count", None)
        return None if count is None else float(ops.convert_to_numpy(count))


class ForceHistory(PenalizedCallback):
    """Remembers the forces of every epoch, `poise.forces(model)` averaged over the epoch's observed steps.

    Args:
        optimizer: the `poise.PenalizedOptimizer` whose forces are remembered, by default that of the model.

    Attributes:
        table: a DataFrame with the columns of `poise.forces` after `epoch` (from 0), one row a variable and epoch.

    Raises:
        ValueError: when training begins, if the optimizer observes nothing (`PenalizedOptimizer(..., observe_every=0)`).

    Example:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.01), observe_every=1), loss="mse")
        >>> remembered = poise.ForceHistory()
        >>> history = model.fit(np.ones((4, 2)), np.ones(4), epochs=3, verbose=0, callbacks=[remembered])
        >>> remembered.table["epoch"].tolist()
        [0, 1, 2]
    """

    def __init__(self, *, optimizer=None):
        super().__init__(optimizer)
        self._tables = []

    @property
    def table(self) -> pd.DataFrame:
        return pd.concat(self._tables, ignore_index=True) if self._tables else pd.DataFrame()

    def on_train_begin(self, logs=None):
        self._tables = []
        if not self.penalized.observe_every:
            raise ValueError(
                "ForceHistory has nothing to remember: compile with poise.PenalizedOptimizer(..., observe_every=10)."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self.penalized.reset_forces()

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.penalized
        if optimizer.built and optimizer.force_record().samples:
            table = forces(self.model, optimizer=self.optimizer)
            table.insert(0, "epoch", epoch)
            self._tables.append(table)


class RestoreZeros(PenalizedCallback):
    """Ends a training of averaged weights (`use_ema=True`) with the exact zeros that the last step left.

    At the end of `fit` Keras puts the average of every weight in its place, and an entry of that average is zero only
    if the weight was zero in every step. This then sets those penalized entries to zero that were zero at the end of
    the last epoch; all others keep their average. If another callback restores the weights or averages of an earlier
    epoch, as `EarlyStopping(restore_best_weights=True)` does, the zeros are those of that epoch.

    With `keras.callbacks.SwapEMAWeights(swap_on_epoch=True)`, by which `EarlyStopping` restores averages and not
    weights, put it after `EarlyStopping`. A model that `ModelCheckpoint` saves while training continues has the weights
    of that step, with their zeros; under `swap_on_epoch=True` it has the averages as they are. With
    `ema_overwrite_frequency` let a step that does not overwrite the weights be the last.

    Args:
        optimizer: the `poise.PenalizedOptimizer` that averages, by default that of the model.

    Warns:
        UserWarning: when training ends with weights that are not those of the end of an epoch, so that no zeros are
            known for them.

    Raises:
        ValueError: when training begins, if the weights are not averaged.

    Example:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> averaged = keras.optimizers.SGD(0.1, use_ema=True)
        >>> model.compile(poise.PenalizedOptimizer(averaged, poise.L1(5.0), update="proximal"), loss="mse")
        >>> history = model.fit(np.ones((64, 2)), np.ones(64), verbose=0, callbacks=[poise.RestoreZeros()])
        >>> int(np.count_nonzero(model.get_weights()[0]))
        0
    """

    def __init__(self, *, optimizer=None):
        super().__init__(optimizer)
        self._zeros = {}
        self._at_last_step = None

    def on_train_begin(self, logs=None):
        self._zeros = {}
        if not self.penalized.use_ema:
            raise ValueError(
                "RestoreZeros is for averaged weights: without keras.optimizers.Adam(use_ema=True), or another average, "
                "training ends with the zeros of its last step by itself."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._at_last_step = None

    def on_train_batch_end(self, batch, logs=None):
        steps = self.params.get("steps")
        if steps is not None and batch >= steps - 1:  # at the end of the epoch SwapEMAWeights may drop the weights
            self._at_last_step = [ops.convert_to_numpy(variable) == 0 for variable in self._variables()]

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.penalized
        averages = [average for target in optimizer.targets for average in optimizer.averages_of(target)]
        pairs = [[ops.convert_to_numpy(v) for v in variables] for variables in (self._variables(), averages)]
        are_zero = self._at_last_step
        if are_zero is None:
            # SwapEMAWeights may have exchanged the two. Where an average is zero, so is the weight.
            are_zero = [(one == 0) | (other == 0) for one, other in zip(*pairs, strict=True)]
        packed = [np.packbits(is_zero) for is_zero in are_zero]
        self._zeros.update({_digest(arrays): packed for arrays in pairs})

    def on_train_end(self, logs=None):
        variables = self._variables()
        arrays = [ops.convert_to_numpy(variable) for variable in variables]
        packed = self._zeros.get(_digest(arrays))
        if packed is None:
            if self._zeros:
                warnings.warn(
                    "RestoreZeros knows no zeros for the weights with which training ends: they are neither the averages "
                    "nor the weights of the end of an epoch. Put it before callbacks that change weights.",
                    stacklevel=2,
                )
            return
        for variable, array, bits in zip(variables, arrays, packed, strict=True):
            is_zero = np.unpackbits(bits, count=array.size).reshape(array.shape).astype(bool)
            variable.assign(np.where(is_zero, np.zeros_like(array), array))

    def _variables(self):
        optimizer = self.penalized
        return [variable for target in optimizer.targets for variable in optimizer.variables_of(target)]


def _digest(arrays):
    """By which weights are recognized."""
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


class TargetSparsity(PenalizedCallback):
    """Raises a strength until a wanted share of what its rule penalizes is exactly zero, and holds the share there.

    After every epoch the strength is multiplied by a factor: by `growth` while nothing is zero, by less the nearer the
    share is, by 1 where it is reached, and beyond it by less than 1, at least 1/growth. So a share that falls back is
    raised again, and one that went too far, because the weights follow a strength late, comes down, as far as zeros
    come back at all: a dead unit may not. With z the share and t the target the factor is growth^((t − z)/t) below the
    target and growth^((t − z)/(1 − t)) above it.

    What is counted is what the penalty brings to zero one by one, over all variables of the rule together: single
    entries, but with `GroupLasso` and `JointGroupLasso` groups (units, inputs). What has the factor 0 is not penalized
    and not counted. The logs get `zeros/<rule>` and `strength/<rule>` of every epoch; put it first in `callbacks`, so
    that those after it see them, and `BackupAndRestore` last, so that what it saves is up to date.

    Args:
        rule: the name of the rule.
        target: the wanted share of zeros, between 0 and 1.
        growth: the largest factor by which the strength grows in an epoch, above 1. A small one takes longer to find
            the strength and oversteps the target less.
        optimizer: the `poise.PenalizedOptimizer` that has the rule, by default that of the model.

    Raises:
        TypeError, ValueError: for a target or a growth out of these bounds; and, when training begins, for a rule that
            brings nothing to zero (a smooth penalty, update="coupled", all of it frozen), that follows a schedule, or
            that begins with the strength 0.
        KeyError: when training begins, for a rule that is not there.

    Example:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), poise.L1(0.01), update="proximal"), loss="mse")
        >>> half = poise.TargetSparsity("kernels", 0.5)
        >>> history = model.fit(x, x[:, :4].sum(axis=1), epochs=40, verbose=0, callbacks=[half])
        >>> history.history["zeros/kernels"][-1]
        0.5
    """

    def __init__(self, rule, target, growth=1.5, *, optimizer=None):
        super().__init__(optimizer)
        if isinstance(target, bool) or not isinstance(target, numbers.Real):
            raise TypeError(f"target={target!r} is a {type(target).__name__}; it is a share of zeros, such as 0.8.")
        if not 0 < float(target) < 1:
            raise ValueError(f"target={target!r} is not allowed: it is a share of zeros between 0 and 1, such as 0.8.")
        if not 1 < growth < math.inf:
            raise ValueError(f"growth={growth!r} is not allowed: it is a finite factor above 1, such as 1.5.")
        self.rule = rule
        self.target = float(target)
        self.growth = growth

    def on_train_begin(self, logs=None):
        optimizer = build_penalized(self.model, self.optimizer)
        strength, penalty = optimizer.strength[self.rule], self._penalty(optimizer)
        who, name = f"TargetSparsity({self.rule!r})", type(penalty).__name__
        if isinstance(penalty.strength, Schedule):
            raise ValueError(f"{who}: this rule's strength follows a schedule and cannot be set. Give it a number.")
        if strength == 0:
            raise ValueError(f"{who}: a strength of 0 grows by no factor. Give the rule a small one, such as 1e-5.")
        if optimizer.update == "coupled":
            raise ValueError(f"{who}: update='coupled' brings nothing to exactly zero. Use update='proximal'.")
        sizes = self._sizes(optimizer)
        if any(one is None for one in sizes):
            raise ValueError(
                f"{who}: {name} brings nothing to exactly zero. Use poise.L1, poise.GroupLasso, or another."
            )
        if not sum(map(len, sizes)):
            raise ValueError(f"{who}: there is nothing to bring to zero. All is frozen, or has the factor 0.")

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.penalized
        share, strength = self._share(optimizer), optimizer.strength[self.rule]
        if logs is not None:
            logs[f"zeros/{self.rule}"] = share
            logs[f"strength/{self.rule}"] = strength
        missing = self.target - share
        room = self.target if missing > 0 else 1.0 - self.target
        optimizer.strength[self.rule] = strength * self.growth ** (missing / room)

    def _share(self, optimizer):
        sizes = [ops.convert_to_numpy(one) for one in self._sizes(optimizer)]
        return float(np.mean(np.concatenate(sizes) == 0))

    def _sizes(self, optimizer):
        """Of every target of the rule, what its penalty can bring to zero."""
        number = [rule.name for rule in optimizer.rules].index(self.rule)
        weights = current_weights(optimizer)
        found = [(penalty, target) for target in optimizer.targets for n, penalty in target.penalties if n == number]
        return [penalty.sizes(weights[target.index]) for penalty, target in found]

    def _penalty(self, optimizer):
        return next(rule.penalty for rule in optimizer.rules if rule.name == self.rule)
