"""`PenalizedOptimizer`: penalties in the optimizer, where the prediction gradient arrives and the weights change.

The optimizer wraps any Keras optimizer. It receives the gradient of the prediction loss, knows the penalties and their
strengths, and combines the two in one of three updates:

- coupled: the penalty's gradient is added to the prediction's, then the inner optimizer steps. This is, weight for
  weight, what Keras does with a `kernel_regularizer`.
- decoupled: the penalty takes a separate step with the learning rate. A smooth one before the inner step (L2(s) is then
  `AdamW(weight_decay=2s)`, Loshchilov and Hutter 2019), a non-smooth one by its prox after it.
- proximal: the inner optimizer steps along the prediction gradient only. Then the proximal operator ("prox") of the
  penalty is applied with the per-weight step sizes (the "metric") that the inner optimizer has just used, so that a
  fixed point is a stationary point of prediction + penalty, with exact zeros.

`update="auto"` couples smooth penalties and applies non-smooth ones by their prox.

The strengths are variables of the optimizer, so that they can be changed, scheduled and batched without compiling
again. What the optimizer records (the penalties' values at every step, the forces at every `observe_every`-th step)
are variables too; `poise.callbacks` and `poise.diagnostics.force_balance` read them.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from poise._keras_internals import (
    distribution_strategy,
    moving_averages,
    set_trained_variables,
    track_in_checkpoint,
    trained_variables,
)
from poise.optimizer import distribution
from poise.optimizer.apply_step import apply_step
from poise.optimizer.averages import build_averages, copy_averages
from poise.optimizer.builder import Builder, choose_metric, uses_metric
from poise.optimizer.checks import (
    check_calling_model,
    check_inner_variables,
    check_known_variables,
    check_same_variables,
    warn_of_inactive,
    why_other_variables,
)
from poise.optimizer.config import config_of, describe, read_config
from poise.optimizer.inner import check_inner, without_average
from poise.optimizer.recording import RecordingOptimizer
from poise.optimizer.records import Records
from poise.optimizer.saved_state import RECORDS, SavedState, copy_value
from poise.optimizer.state import State
from poise.optimizer.strengths import Strengths
from poise.optimizer.targets import Target
from poise.penalties import Penalty
from poise.penalties.base import PACKAGE, Schedule
from poise.rules.calling_code import find_owner
from poise.rules.layers import register_layers
from poise.rules.plan import Plan, resolve
from poise.rules.rule import Rule, as_rules
from poise.validation import validate_count


@keras.saving.register_keras_serializable(PACKAGE)
class PenalizedOptimizer(RecordingOptimizer):
    """Add penalties to a Keras optimizer: total loss = prediction loss + Σ_r strength_r · R_r(w_r).

    The settings of the inner optimizer (`learning_rate`, `clipnorm`, `beta_1`, ...) are read and set through this one.

    Args:
        inner_optimizer: Any Keras optimizer, its name or its configuration.
        rules: A penalty, a `poise.Rule`, or a list of those. A penalty without a rule acts on kernels and embeddings,
            never on biases and normalization scales. An empty list means no penalty.
        update: How the penalties act. Default: `"auto"`.

            - `"auto"`: Smooth penalties (L2) are coupled, non-smooth ones (L1, GroupLasso) proximal.
            - `"coupled"`: By their gradient, as a Keras `kernel_regularizer` does. L1 gives no exact zeros.
            - `"decoupled"`: By a separate step with the learning rate, as the weight decay of AdamW does.
            - `"proximal"`: By their proximal operator, with the step size that the inner optimizer uses for each
              weight. L1 and other non-smooth penalties give exact zeros.
        observe_every: Record the forces on the weights (the gradients of prediction and penalty) at every
            `observe_every`-th step, for `poise.forces(model)`. Default: 0, which records none.
        name: Name of the optimizer. Default: None, which uses the name of the class.

    Raises:
        TypeError: If `inner_optimizer` is not an optimizer, `rules` contains anything but penalties and rules, or
            `observe_every` is not an int.
        ValueError: If an argument is not allowed, or the inner optimizer has no usable step for a proximal update.
            When the optimizer is built: if the rules do not fit the variables (see `poise.Rule`).

    References:
        Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
        Yun, Lozano and Yang 2021, "Adaptive proximal gradient methods for structured neural networks".

    Examples:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
        >>> model.optimizer
        <PenalizedOptimizer Adam, update='auto', rules={'kernels': L2(0.01)}>
        >>> history = model.fit(np.ones((8, 10)), np.ones(8), verbose=0)
        >>> model.optimizer.strength["kernels"] = 0.1
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | dict,
        rules: Penalty | Rule | Iterable[Penalty | Rule],
        update: str = "auto",
        observe_every: int = 0,
        name: str | None = None,
    ) -> None:
        inner: Any = keras.optimizers.get(inner_optimizer)
        if isinstance(inner, PenalizedOptimizer):
            raise ValueError(
                "inner_optimizer is a PenalizedOptimizer. Pass all rules to one PenalizedOptimizer: "
                "PenalizedOptimizer(inner_optimizer, [rule, rule])."
            )
        rules = as_rules(rules)
        check_inner(inner, update, update == "decoupled" or uses_metric(rules, update))
        super().__init__(name)
        self.update = update
        self.observe_every = validate_count("observe_every", observe_every, 0)
        self.inner_optimizer = inner
        metric = choose_metric(inner, rules, update)
        self._state = State(rules, metric, Strengths(rules, lambda: inner.iterations))
        names = [rule.name for rule in rules]
        self.penalty_state = SavedState(self.name, names, lambda: self._state.variables, lambda: self.built)

    def set_inner(self, name: str, value: Any) -> None:
        """Set an attribute of the inner optimizer, such as `beta_1` or `clipnorm`, as an assignment here does.

        Args:
            name: Name of the attribute.
            value: Its new value.

        Raises:
            ValueError: If a penalty acts by its prox, which does not work with this value. The attribute then keeps
                its old value.
        """
        inner, current = self.inner_optimizer, self._state.metric
        old_value = getattr(inner, name)
        setattr(inner, name, value)
        try:
            metric = choose_metric(inner, self.rules, self.update)
            if self.built and current and metric and bool(metric.momentum) != bool(current.momentum):
                raise ValueError(
                    f"{name}={value!r} cannot be set after the optimizer is built, because turning momentum on or off "
                    "changes its state. Set it before training."
                )
        except ValueError:
            setattr(inner, name, old_value)
            raise
        self._state.metric = metric

    # ---------------------------------------------------------------- rules, strengths, targets

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, with the strengths that they were made with."""
        return tuple(self._state.rules)

    @property
    def strength(self) -> Strengths:
        """The current strengths, by rule name.

        To change one, assign to it: `optimizer.strength["kernels"] = 0.1`. This also works between epochs. In a
        callback on JAX, access the optimizer as `self.model.optimizer`, and only between epochs.
        """
        return self._state.strengths

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is penalized: one variable each, or the variables of a joint penalty. Empty before the build."""
        return tuple(self._state.targets)

    def current_strengths(self) -> list[Any]:
        """Return the strength of every rule as a tensor, in the order of the rules."""
        return self._state.strengths.tensors()

    def variables_of(self, target: Target) -> list[Any]:
        """Return the variables of a target, in its order."""
        return [trained_variables(self)[number] for number in target.members]

    def averages_of(self, target: Target) -> list[Any]:
        """Return the variables that hold the averages of a target's variables (`use_ema=True`), in its order."""
        return [moving_averages(self)[number] for number in target.members]

    # ---------------------------------------------------------------- build

    def build(self, variables: Iterable[Any], model: Any = None) -> None:
        """Resolve the rules and make the optimizer's variables.

        Args:
            variables: The variables that are trained.
            model: The model that they belong to, so that a rule for its frozen layers is not taken for a mistake.
                Default: None, which looks for it in the calling code.

        Raises:
            ValueError: If the rules do not fit the variables, or the optimizer or its inner optimizer is built for
                other variables.
        """
        variables = list(variables)
        model = find_owner(variables) if model is None else model
        if not variables and model is not None:
            variables = list(model.trainable_variables)
        check_same_variables(self, variables)
        if self.built:
            return
        check_inner_variables(self.inner_optimizer, variables)
        state = self._state
        plan = self.plan(variables, model)
        warn_of_inactive([state.rules[number].name for number in plan.inactive])
        distribution.check(distribution_strategy(self), self.inner_optimizer)
        # All device replicas compute the same, so that the value of the first one is right for all.
        add_variable = functools.partial(self.add_variable, aggregation="only_first_replica")
        is_double = any(keras.backend.standardize_dtype(variable.dtype) == "float64" for variable in variables)
        state.strengths.build(add_variable, "float64" if is_double else "float32")
        state.targets = Builder(self, state.rules, self.update, state.metric).targets(plan, variables)
        state.records = Records(add_variable, len(state.rules), state.targets, self.observe_every)
        with without_average(self.inner_optimizer):
            self.inner_optimizer.build(variables)
        set_trained_variables(self, variables)
        state.name_variables(build_averages(self, variables))
        state.resolved = plan.config
        track_in_checkpoint(self, {" ".join(map(str, name)): v for name, v in state.variables.items()})
        self.built = True

    def plan(self, variables: Sequence[Any], model: Any = None) -> Plan:
        """Return what the rules resolve to: as they were restored with the optimizer, or by matching them.

        Args:
            variables: The variables that are trained.
            model: The model that they belong to. Default: None, for a model that is not known.

        Raises:
            ValueError: If the rules do not fit the variables.
        """
        if model is not None:
            register_layers([model])
        return resolve(self._state.rules, variables, [] if model is None else model.weights, self._state.resolved)

    @property
    def resolved(self) -> dict | None:
        """What the rules resolved to, with the variables by their positions; None before it is known."""
        return self._state.resolved

    def restore_plan(self, resolved: dict | None) -> "PenalizedOptimizer":
        """Set what the rules resolve to on build (`resolved`) and return the optimizer."""
        self._state.resolved = resolved
        return self

    def with_rules(self, rules: Sequence[Rule], variables: Sequence[Any], model: Any = None) -> "PenalizedOptimizer":
        """Return an optimizer with further rules that continues this one, around the same inner optimizer.

        It takes over the strengths, the averages of the weights, the anchors and the momentum of the proximal steps;
        its records start empty. Do not use this optimizer afterwards.

        Args:
            rules: Rules whose names differ from the names of this optimizer's rules.
            variables: The variables that are trained.
            model: The model that they belong to. Default: None, for a model that is not known.

        Raises:
            ValueError: As `PenalizedOptimizer` does when it is built. This optimizer is then unchanged.
        """
        new = PenalizedOptimizer(
            self.inner_optimizer, [*self.rules, *rules], self.update, self.observe_every, self.name
        )
        for rule in self.rules:
            if not isinstance(rule.penalty.strength, Schedule):
                new.strength[rule.name] = self.strength[rule.name]
        new._state.records_values = self._state.records_values
        new._state.resolved = self._state.resolved
        if self.built:
            new.build(variables, model)
        for name, variable in new._state.variables.items():
            if name in self._state.variables and name[0] != RECORDS:
                variable.assign(copy_value(self._state.variables[name]))
        return new

    @contextlib.contextmanager
    def use_factors(self, factors: Mapping[tuple[int, int], Any]) -> Iterator[None]:
        """Replace the factors of the penalties within a `with` block, also by traced tensors (the lanes of a path).

        Args:
            factors: By (index of a target, number of a rule) the factors per entry or group, as the penalty's
                `factors`.
        """
        targets = self._state.targets
        self._state.targets = [target.with_factors(factors) for target in targets]
        try:
            yield
        finally:
            self._state.targets = targets

    # ---------------------------------------------------------------- steps

    def apply(self, grads: Iterable[Any], trainable_variables: Iterable[Any] | None = None) -> None:
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                self.build(trainable_variables)
            check_known_variables(self, trainable_variables)
        apply_step(self, self._state, grads, trainable_variables)

    def assign(self, variable: Any, value: Any) -> None:
        if not distribution.assign(variable, value):
            super().assign(variable, value)

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> Any:
        if self.built and len(trainable_variables) != len(trained_variables(self)):
            raise ValueError(why_other_variables(self, f"{len(trainable_variables)} variables"))
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        super().finalize_variable_values(var_list)
        with without_average(self.inner_optimizer):
            self.inner_optimizer.finalize_variable_values(var_list)  # a MultiOptimizer keeps separate averages
        if self.use_ema:
            copy_averages(self)

    # ---------------------------------------------------------------- variables, saving

    @property
    def variables(self) -> list[Any]:
        if keras.backend.backend() == "jax":
            check_calling_model(self)
        return [*self._state.variables.values(), *self.inner_optimizer.variables]

    def _track_variable(self, variable: Any) -> None:
        # A private method of Keras, which lists the variables by position; `State.name_variables` names them.
        if "_state" not in vars(self):
            super()._track_variable(variable)

    def set_weights(self, weights: Sequence[Any]) -> None:
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def save_own_variables(self, store: Any) -> None:
        """Save nothing. Keras saves `penalty_state` and the inner optimizer, which hold all variables."""

    def load_own_variables(self, store: Any) -> None:
        """Load nothing. The inner optimizer warns that it skips the state of a stock optimizer."""

    def get_config(self) -> dict[str, Any]:
        return config_of(self)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "PenalizedOptimizer":
        arguments, resolved = read_config(config, custom_objects)
        return cls(**arguments).restore_plan(resolved)

    def __repr__(self) -> str:
        return describe(self)
