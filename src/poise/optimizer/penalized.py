"""`PenalizedOptimizer`: the penalty where the prediction gradient arrives and the weights are changed.

An optimizer around any Keras optimizer. It receives the gradient of the prediction loss, knows the penalties and
their strengths, and brings the two together in one of three updates:

- coupled: the penalty's gradient is added to the prediction's, then the inner optimizer steps. This is, weight for
  weight, what Keras does with a `kernel_regularizer`.
- decoupled: the penalty takes a step of its own with the learning rate. A smooth one before the inner step (L2(s) is
  then `AdamW(weight_decay=2s)`, Loshchilov and Hutter 2019), a non-smooth one by its prox after it.
- proximal: the inner optimizer steps along the prediction gradient alone, then the prox acts in the metric of that
  very step, so that a fixed point is a stationary point of prediction + penalty, with exact zeros.

The strengths are variables of the optimizer, so that they can be changed, scheduled and batched without compiling
anew. What it records on the way (the penalty's value at every step, the forces at every `observe`-th) are variables
too; `poise.callbacks` and `poise.diagnostics.force_balance` read them.
"""

import contextlib
import functools
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from poise._keras_internals import model_of_h5_file
from poise.optimizer import distribution
from poise.optimizer.builder import Builder
from poise.optimizer.inner import InnerSetting, check_inner, loss_scale, without_average
from poise.optimizer.metrics import Metric, metric_of
from poise.optimizer.records import ForceRecord, PenaltyRecord, Records
from poise.optimizer.saved_state import RECORDS, SavedState, copied
from poise.optimizer.steps import gated, step_after, with_momentum
from poise.optimizer.strengths import Strengths
from poise.optimizer.targets import Target, dense, needs_prox, pull
from poise.penalties.base import PACKAGE, Schedule
from poise.rules.layers import find_layers, learn
from poise.rules.members import path_of
from poise.rules.plan import Plan, resolve
from poise.rules.rule import Rule, as_rules


@keras.saving.register_keras_serializable(PACKAGE)
class PenalizedOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer with penalties: total loss = prediction loss + Σ_r strength_r · R_r(w_r).

    Args:
        inner: any Keras optimizer, its name or its configuration.
        rules: a penalty (put on kernels and embeddings, never on biases and normalization scales), a `poise.Rule`, or
            a list of those; an empty list for no penalty.
        update: `"coupled"`, `"decoupled"` or `"proximal"`.
        observe: record the two forces on the weights at every `observe`-th step, for `poise.forces(model)`; 0: never.
        name: the optimizer's name.

    Raises:
        TypeError, ValueError: for a wrong argument, and, when the optimizer is built, for rules that do not fit the
            variables (see `poise.Rule`).

    Example:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
        >>> history = model.fit(np.ones((8, 10)), np.ones(8), verbose=0)
        >>> model.optimizer.strength["kernels"] = 0.1
    """

    weight_decay = InnerSetting()
    clipnorm = InnerSetting()
    clipvalue = InnerSetting()
    global_clipnorm = InnerSetting()
    use_ema = InnerSetting()
    ema_momentum = InnerSetting()
    ema_overwrite_frequency = InnerSetting()
    gradient_accumulation_steps = InnerSetting()
    loss_scale_factor = InnerSetting()

    def __init__(self, inner_optimizer, rules, update="auto", observe_every=0, name=None):
        inner = keras.optimizers.get(inner_optimizer)
        if isinstance(inner, PenalizedOptimizer):
            raise ValueError(
                "PenalizedOptimizer around a PenalizedOptimizer: give all rules to one, PenalizedOptimizer(inner, [rule, rule])."
            )
        if isinstance(observe_every, bool) or not isinstance(observe_every, int) or observe_every < 0:
            raise ValueError(f"observe_every must be an int >= 0, got {observe_every!r}.")
        rules = as_rules(rules)
        check_inner(inner, update, update in ("decoupled", "proximal") or _has_prox(rules, update))
        # The inner optimizer counts the steps and holds the rate; those of the base class stay as they are.
        super().__init__(learning_rate=0.0, name=name)
        self.update = update
        self.observe_every = observe_every
        self.inner_optimizer = inner
        metric = _metric(inner, rules, update)
        self._state = _State(rules, metric, Strengths(rules, lambda: inner.iterations))
        names = [rule.name for rule in rules]
        self.penalty_state = SavedState(self.name, names, lambda: self._state.variables, lambda: self.built)

    def __getattr__(self, name):
        inner = vars(self).get("inner_optimizer")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def __setattr__(self, name, value):
        inner = vars(self).get("inner_optimizer")
        is_own = inner is None or name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if is_own or not hasattr(inner, name):
            super().__setattr__(name, value)
        else:
            self.set_inner(name, value)

    def set_inner(self, name, value):
        """Sets an attribute of the inner optimizer, such as `beta_1` or `clipnorm`: what assigning to it here does.

        Raises:
            ValueError: if the proximal update does not work with it; the attribute is then as it was.
        """
        inner = self.inner_optimizer
        before = getattr(inner, name)
        setattr(inner, name, value)
        if self.update != "proximal" and not _has_prox(self.rules, self.update):
            return
        try:
            metric = _metric(inner, self.rules, self.update)
            current = self._state.metric
            if self.built and current and metric and bool(metric.momentum) != bool(current.momentum):
                raise ValueError(
                    f"{name}={value!r} cannot be set after the optimizer is built, because turning momentum on or off "
                    "changes its state. Set it before training."
                )
        except ValueError:
            setattr(inner, name, before)
            raise
        self._state.metric = metric

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, with the strengths that they were given."""
        return tuple(self._state.rules)

    @property
    def strength(self) -> Strengths:
        """The current strengths by the name of their rule; assigning sets one, also between epochs.

        In a callback on JAX reach the optimizer as `self.model.optimizer`, and only between epochs.
        """
        return self._state.strengths

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is penalized, known once the optimizer is built: a variable each, or those of a joint penalty."""
        return tuple(self._state.targets)

    def penalty_record(self) -> PenaltyRecord:
        """Return the values of the penalties during training, since `keep_values` or `reset_values`."""
        return self._records.values()

    def force_record(self) -> ForceRecord:
        """Return the forces at the observed steps, since the optimizer was built or `reset_forces`."""
        return self._records.forces()

    def keep_values(self) -> bool:
        """From now on records what the penalties are worth at every step, which takes a pass over the weights.

        Returns:
            Whether that is new: a training step that was compiled before must then be compiled anew.
        """
        is_new = not self._state.keeps_values
        self._state.keeps_values = True
        return is_new

    def reset_values(self):
        """Forgets the recorded values of the penalties, so that their mean starts anew."""
        if self.built:
            self._records.reset_values()

    def reset_forces(self):
        """Forgets the recorded forces, so that their averages start anew."""
        if self.built:
            self._records.reset_forces()

    def current_strengths(self) -> list:
        """The strength of every rule as a tensor, in the order of the rules."""
        return self._state.strengths.tensors()

    def variables_of(self, target) -> list:
        """The variables of a target, in its order."""
        return [self._trainable_variables[number] for number in target.members]

    def averages_of(self, target) -> list:
        """The variables that hold the averages of a target's variables (use_ema=True), in its order."""
        return [self._model_variables_moving_average[number] for number in target.members]

    def build(self, variables, model=None):
        """Resolves the rules and makes the optimizer's variables.

        Args:
            variables: the variables that are trained.
            model: the model that they belong to, so that a rule for its frozen layers is not taken for a mistake; None
                to look for it among the callers.

        Raises:
            ValueError: if the rules do not fit the variables, or the optimizer or its inner one is built for others.
        """
        variables = list(variables)
        model = _owner(variables) if model is None else model
        if not variables and model is not None:
            variables = list(model.trainable_variables)
        self._check_same(self, variables)
        if self.built:
            return
        self._check_same(self.inner_optimizer, variables)
        state = self._state
        plan = self.plan(variables, model)
        for number in plan.asleep:
            warnings.warn(
                f"Rule {state.rules[number].name!r} sleeps: every variable that it matches is frozen "
                "(trainable=False), or state such as a scale of float8, so it has no effect.",
                stacklevel=2,
            )
        if getattr(self, "_distribution_strategy", None) is not None:
            distribution.check(self._distribution_strategy, self.inner_optimizer)
        # Several replicas compute the same, so that what the first one assigns is right for all.
        add_variable = functools.partial(self.add_variable, aggregation="only_first_replica")
        is_double = any(keras.backend.standardize_dtype(variable.dtype) == "float64" for variable in variables)
        state.strengths.build(add_variable, "float64" if is_double else "float32")
        state.targets = Builder(self, state.rules, self.update, state.metric).targets(plan, variables)
        state.records = Records(add_variable, len(state.rules), state.targets, self.observe_every)
        with without_average(self.inner_optimizer):
            self.inner_optimizer.build(variables)
        # What the build of the base class does, without a second set of gradient accumulators. Past Keras' tracking,
        # for which these are no variables of the optimizer.
        places = {self._var_key(variable): number for number, variable in enumerate(variables)}
        object.__setattr__(self, "_trainable_variables", variables)
        object.__setattr__(self, "_trainable_variables_indices", places)
        averages = []
        if self.use_ema:
            averages = self.add_optimizer_variables(variables, "average")
            # An inner optimizer that has trained before has an average already.
            earlier = getattr(self.inner_optimizer, "_model_variables_moving_average", [])
            for average, before in zip(averages, earlier, strict=False):
                if average is not None:
                    average.assign(copied(before))
            # keras.callbacks.SwapEMAWeights looks for them in the inner optimizer.
            for optimizer in (self, self.inner_optimizer):
                object.__setattr__(optimizer, "_model_variables_moving_average", averages)
        state.variables = self._named_variables(averages)
        state.resolved = plan.config
        if hasattr(self, "_track_trackable"):  # TensorFlow's checkpoints and saved models
            for variable_name, variable in state.variables.items():
                self._track_trackable(variable, " ".join(map(str, variable_name)))
        self.built = True

    def plan(self, variables, model=None) -> Plan:
        """What the rules resolve to, as they were restored with the optimizer or by matching them.

        Args:
            variables: the variables that are trained.
            model: the model that they belong to, or None if it is not known.

        Raises:
            ValueError: if the rules do not fit the variables.
        """
        if model is not None:
            learn([model])
        return resolve(self._state.rules, variables, [] if model is None else model.weights, self._state.resolved)

    @property
    def resolved(self) -> dict | None:
        """What the rules resolved to, with the variables by their positions; None before it is known."""
        return self._state.resolved

    def resolved_as(self, resolved: dict | None) -> "PenalizedOptimizer":
        """Set what the rules resolve to on build (`resolved`) and return the optimizer."""
        self._state.resolved = resolved
        return self

    def _named_variables(self, averages) -> dict:
        """By what they are, the rule and the number of the trained variable: all variables of the wrapper."""
        state, rules = self._state, self._state.rules
        variables = {("strength", rules[n].name): v for n, v in state.strengths.variables.items()}
        for target in state.targets:
            variables |= {("start", rules[n].name, target.index): v for n, v in target.anchors}
            if target.trace is not None:
                variables["step trace", target.index] = target.trace
        variables |= {("average", number): v for number, v in enumerate(averages) if v is not None}
        return variables | {(RECORDS, name): v for name, v in self._records.variables.items()}

    def _track_variable(self, variable):
        # Keras lists the variables by position; `_named_variables` names them.
        if "_state" not in vars(self):
            super()._track_variable(variable)

    def _check_same(self, optimizer, variables):
        """Raises ValueError if an optimizer is built for other variables than these."""
        before = optimizer._trainable_variables if optimizer.built else variables
        if [id(v) for v in before] == [id(v) for v in variables]:
            return
        if optimizer is self:
            raise ValueError(self._why_other_variables(f"{len(variables)} others"))
        raise ValueError(
            f"The inner optimizer {optimizer.name!r} was already built for {len(before)} other variables, of "
            "another model or another poise.PenalizedOptimizer. Create a separate inner optimizer for each."
        )

    def with_rules(self, rules, variables, model=None) -> "PenalizedOptimizer":
        """An optimizer with further rules that goes on where this one is, around the same inner optimizer.

        It takes over the strengths, the averages of the weights, the anchors and the momentum of the proximal steps;
        what is recorded starts anew. This one is then of no further use.

        Args:
            rules: rules whose names differ from those of this optimizer.
            variables: the variables that are trained.
            model: the model that they belong to.

        Raises:
            ValueError: as `PenalizedOptimizer` does when it is built; this optimizer is then as it was.
        """
        new = PenalizedOptimizer(
            self.inner_optimizer, [*self.rules, *rules], self.update, self.observe_every, self.name
        )
        for rule in self.rules:
            if not isinstance(rule.penalty.strength, Schedule):
                new.strength[rule.name] = self.strength[rule.name]
        new._state.keeps_values = self._state.keeps_values
        new._state.resolved = self._state.resolved
        if self.built:
            new.build(variables, model)
        for name, variable in new._state.variables.items():
            if name in self._state.variables and name[0] != RECORDS:
                variable.assign(copied(self._state.variables[name]))
        return new

    @contextlib.contextmanager
    def reweighted(self, factors):
        """Within it the penalties have other factors, which may be traced tensors (the lanes of a path).

        Args:
            factors: by (the index of a target, the number of a rule) the factors per entry or group, as in the
                penalty's `weights`.
        """
        targets = self._state.targets
        self._state.targets = [target.reweighted(factors) for target in targets]
        try:
            yield
        finally:
            self._state.targets = targets

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                self.build(trainable_variables)
            self._check_variables_are_known(trainable_variables)
        variables = trainable_variables or self._trainable_variables
        inner, state = self.inner_optimizer, self._state
        places = {self._get_variable_index(variable): j for j, variable in enumerate(variables)}
        targets = [target for target in state.targets if self._has_all(target, places)]
        strengths = self.current_strengths()
        for j in [places[number] for target in targets for number in target.members]:
            grads[j] = dense(grads[j], variables[j])
        grads = distribution.summed(grads)

        def weight_of(number):
            return _value_of(variables[places[number]])

        def gradient_of(number):
            gradient = grads[places[number]]
            return gradient if scale is None else gradient / scale

        # All of this is read before the inner update, which advances the iterations and the schedules with them.
        needs_rate = any(target.shrinking or target.after for target in targets)
        rate = ops.copy(ops.convert_to_tensor(inner.learning_rate)) if needs_rate else None
        is_update, is_first, overwrites = self._phase()
        self._anchor(targets, weight_of)
        scale = loss_scale(inner)
        weights = {target.index: target.gathered(weight_of) for target in targets}
        if state.keeps_values:
            self._records.record_values(targets, weights, strengths)
        if self.observe_every:
            observed = [(target, weights[target.index], target.gathered(gradient_of)) for target in targets]
            self._records.record_forces(observed, strengths, inner.iterations)
        pending = []
        for target in targets:
            w = weights[target.index]
            if target.shrinking:
                step = gated(ops.cast(rate, w.dtype), is_update)
                self._assign(target, w - step * pull(target.shrinking, w, strengths), variables, places)
            if target.joining:
                for number, force in target.scattered(pull(target.joining, w, strengths)):
                    j = places[number]
                    grads[j] = grads[j] + ops.cast(force if scale is None else scale * force, grads[j].dtype)
            if target.after:
                pending.append((target, step_after(target, state.metric, inner, weight_of, gradient_of, rate)))

        with without_average(inner):
            inner.apply(distribution.of_the_first(grads), trainable_variables)

        for target, step in pending:
            h = gated(with_momentum(target, state.metric, step(), is_update, self.assign), is_update)
            w = target.gathered(weight_of)
            for number, penalty in target.after:
                w = penalty.prox(w, h, strengths[number])
            self._assign(target, w, variables, places)
        if self.use_ema:
            self._average(is_first, overwrites)

    def _anchor(self, targets, weight_of):
        """Before the first step of training sets the anchors to the weights, which may have been loaded since."""
        for target in targets:
            for _, start in target.anchors:
                is_start = ops.equal(self.inner_optimizer._iterations, 0)
                w = ops.cast(weight_of(target.index), start.dtype)
                self.assign(start, ops.where(is_start, w, ops.convert_to_tensor(start)))

    @property
    def _records(self) -> Records:
        if self._state.records is None:
            raise ValueError(
                f"The optimizer {self.name!r} is not built yet and has recorded nothing. Train the model, or call "
                "optimizer.build(model.trainable_variables)."
            )
        return self._state.records

    def _has_all(self, target, places):
        """Whether all variables of a target are among those of a step, and not none.

        Raises:
            ValueError: if only some are.
        """
        missing = [variable for variable in target.members if variable not in places]
        if missing and len(missing) < len(target.members):
            raise ValueError(
                f"{target.path!r} penalizes {len(target.members)} variables together, and "
                f"{path_of(self._trainable_variables[missing[0]])!r} is not in this step. Apply the gradients of all."
            )
        return not missing

    def assign(self, variable, value):
        if not distribution.assign(variable, value):
            super().assign(variable, value)

    def _assign(self, target, whole, variables, places):
        for number, w in target.scattered(whole):
            self.assign(variables[places[number]], w)

    def _phase(self):
        """(is this a real update, is it the first, does the average overwrite), None where the answer is always yes."""
        inner = self.inner_optimizer
        is_update = None
        if inner.gradient_accumulation_steps:
            is_update = ops.equal((inner._iterations + 1) % inner.gradient_accumulation_steps, 0)
        is_first = overwrites = None
        if self.use_ema:
            is_first = ops.equal(inner.iterations, 0)
            if self.ema_overwrite_frequency:
                overwrites = ops.equal((inner.iterations + 1) % self.ema_overwrite_frequency, 0)
        return is_update, is_first, overwrites

    def _average(self, is_first, overwrites):
        for variable in self._trainable_variables:
            average = self._model_variables_moving_average[self._get_variable_index(variable)]
            if average is None:  # bookkeeping that is overwritten and not trained, as in float8 layers
                continue
            w = ops.convert_to_tensor(variable)
            momentum = ops.where(is_first, 0.0, ops.cast(self.ema_momentum, w.dtype))
            mean = momentum * ops.convert_to_tensor(average) + (1.0 - momentum) * w
            self.assign(average, mean)
            if overwrites is not None:
                self.assign(variable, ops.where(overwrites, mean, w))

    @property
    def variables(self):
        if keras.backend.backend() == "jax":
            self._check_calling_model()
        return [*self._state.variables.values(), *self.inner_optimizer.variables]

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        with without_average(self.inner_optimizer):
            self.inner_optimizer.finalize_variable_values(var_list)  # a MultiOptimizer keeps the averages of its own
        if self.use_ema:
            # Else a weight and its average share a buffer on JAX, which the next fit donates twice.
            for average in self._model_variables_moving_average:
                if average is not None:
                    average.assign(ops.copy(ops.convert_to_tensor(average)))

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        if self.built and len(trainable_variables) != len(self._trainable_variables):
            raise ValueError(self._why_other_variables(f"{len(trainable_variables)} variables"))
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    def _check_calling_model(self):
        """Raises ValueError if a model that is compiled with this optimizer trains and has other variables.

        JAX's trainer gives an optimizer only arrays, and asks for its variables before it takes a model apart.
        """
        model = _calling_model()
        outer = getattr(model, "optimizer", None)
        if model is None or (self is not outer and self is not getattr(outer, "inner_optimizer", None)):
            return
        own = {id(weight) for weight in model.weights}
        if not all(id(variable) in own for variable in self._trainable_variables):
            raise ValueError(self._why_other_variables(f"the model {model.name!r}"))

    def _check_variables_are_known(self, variables):
        for variable in variables:
            if self._var_key(variable) not in self._trainable_variables_indices:
                raise ValueError(self._why_other_variables(repr(path_of(variable))))

    def _why_other_variables(self, given):
        return (
            f"{self.name!r} was built for {len(self._trainable_variables)} variables and cannot step on {given}: "
            "layers were frozen or thawed since, or the model is another. Compile with a new one, which has the same "
            "rules at their current strengths: poise.PenalizedOptimizer.from_config(poise.get_penalized_optimizer(model).get_config())."
        )

    def set_weights(self, weights):
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def save_own_variables(self, store):
        """Save nothing. Keras saves `penalty_state` and the inner optimizer, which hold all variables."""

    def load_own_variables(self, store):
        """Load nothing. The inner optimizer warns that it skips the state of a stock optimizer."""

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        rules = [keras.saving.serialize_keras_object(rule) for rule in self.rules]
        for rule, config in zip(self.rules, rules, strict=True):
            if not isinstance(rule.penalty.strength, Schedule):
                _innermost(config["config"]["penalty"])["strength"] = self.strength[rule.name]
        return {
            "name": self.name,
            "inner_optimizer": inner,
            "rules": rules,
            "update": self.update,
            "observe_every": self.observe_every,
            "resolved": self._state.resolved,
        }

    def __repr__(self) -> str:
        rules = ", ".join(
            f"{rule.name!r}: {type(rule.penalty).__name__}"
            + ("" if isinstance(rule.penalty.strength, Schedule) else f"({self.strength[rule.name]:g})")
            for rule in self.rules
        )
        return f"<PenalizedOptimizer {type(self.inner_optimizer).__name__}, update={self.update!r}, rules={{{rules}}}>"

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        inner, rules, resolved = config.pop("inner_optimizer"), config.pop("rules"), config.pop("resolved", None)
        inner = keras.saving.deserialize_keras_object(inner, custom_objects=custom_objects)
        rules = [keras.saving.deserialize_keras_object(rule, custom_objects=custom_objects) for rule in rules]
        return cls(inner, rules, **config).resolved_as(resolved)


def _has_prox(rules, update) -> bool:
    """Whether update="auto" applies one of the rules by its prox."""
    return update == "auto" and any(needs_prox(rule.penalty) for rule in rules)


def _metric(inner, rules, update) -> Metric | None:
    """The metric of the inner optimizer if a penalty acts by its prox in the metric of the step.

    Raises:
        ValueError: If the inner optimizer has no usable step.
    """
    if update == "proximal":
        return metric_of(inner)
    if not _has_prox(rules, update):
        return None
    try:
        return metric_of(inner)
    except ValueError as error:
        rule = next(rule for rule in rules if needs_prox(rule.penalty))
        raise ValueError(
            f"{type(rule.penalty).__name__} needs a proximal step for exact zeros (update='auto'). {error} To use only "
            "the gradient of the penalty, without exact zeros, use update='coupled'."
        ) from None


@dataclass
class _State:
    """What the optimizer keeps beside its variables' list: in one object, which no backend wraps or tracks."""

    rules: list[Rule]
    metric: Metric | None
    strengths: Strengths
    targets: list[Target] = field(default_factory=list)
    records: Records | None = None
    keeps_values: bool = False
    variables: dict[tuple, Any] = field(default_factory=dict)
    """By name the variables of the wrapper."""
    resolved: dict | None = None
    """What the rules resolved to, or are restored to when the optimizer is built."""


def get_penalized_optimizer(model) -> PenalizedOptimizer:
    """The `PenalizedOptimizer` that a model was compiled with, also inside a `LossScaleOptimizer`.

    Raises:
        ValueError: if there is none.

    Example:
        >>> import poise, keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
        >>> poise.get_penalized_optimizer(model) is model.optimizer
        True
    """
    optimizer = getattr(model, "optimizer", None)
    while optimizer is not None and not isinstance(optimizer, PenalizedOptimizer):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    if optimizer is None:
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} is not compiled with poise.PenalizedOptimizer. Compile it with "
            "optimizer=poise.PenalizedOptimizer('adam', poise.L2(0.01)), or another rule."
        )
    return optimizer


def _calling_model() -> keras.Model | None:
    """The model in whose method the optimizer is called; None in a hand-written loop.

    Keras gives an optimizer only the trained variables, and without the others a rule for frozen layers cannot be
    distinguished from a misspelled one.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner: Any = frame.f_locals.get("self")
        if isinstance(owner, keras.Model):
            return owner
        frame = frame.f_back
    return None


def _owner(variables) -> keras.layers.Layer | None:
    """The model or layer that owns all of the variables, from the calling frames; None if none does.

    Layers that own some of them are learned, so that the roles and the sides of those are known.
    """
    if not variables:
        return model_of_h5_file() or _calling_model()
    layers = find_layers(variables)
    learn(layers)
    owned = [{id(weight) for weight in layer.weights} for layer in layers]
    return next((layer for layer, ids in zip(layers, owned, strict=True) if all(id(v) in ids for v in variables)), None)


def _value_of(variable):
    """Its value without a tape: in a PyTorch loop the weights still record gradients here."""
    return ops.stop_gradient(ops.convert_to_tensor(variable))


def _innermost(penalty_config):
    inside = penalty_config["config"]
    return _innermost(inside["penalty"]) if "penalty" in inside else inside
