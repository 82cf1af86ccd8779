"""Is an optimizer used with the variables that it was built for?"""

import warnings
from collections.abc import Sequence
from typing import Any

from poise._keras_internals import trained_variables, variable_indices
from poise.rules.calling_code import calling_model
from poise.rules.members import path_of


def check_same_variables(optimizer: Any, variables: Sequence[Any]) -> None:
    """Raise ValueError if a `PenalizedOptimizer` is built for other variables than these."""
    if not _is_built_for(optimizer, variables):
        raise ValueError(why_other_variables(optimizer, f"a different set of {len(variables)} variables"))


def check_inner_variables(inner: Any, variables: Sequence[Any]) -> None:
    """Raise ValueError if an inner optimizer is built for other variables than these."""
    if not _is_built_for(inner, variables):
        raise ValueError(
            f"The inner optimizer {inner.name!r} was already built for {len(trained_variables(inner))} other "
            "variables, of another model or another poise.PenalizedOptimizer. Create a separate inner optimizer for "
            "each."
        )


def check_known_variables(optimizer: Any, variables: Sequence[Any]) -> None:
    """Raise ValueError if an optimizer was not built for one of the variables."""
    for variable, index in zip(variables, variable_indices(optimizer, variables), strict=True):
        if index is None:
            raise ValueError(why_other_variables(optimizer, repr(path_of(variable))))


def check_calling_model(optimizer: Any) -> None:
    """Raise ValueError if a model that is compiled with the optimizer trains and has other variables.

    Keras' JAX trainer passes only arrays to an optimizer, so this check runs when it requests the optimizer's
    variables.
    """
    model = calling_model()
    outer = getattr(model, "optimizer", None)
    if model is None or (optimizer is not outer and optimizer is not getattr(outer, "inner_optimizer", None)):
        return
    of_model = {id(weight) for weight in model.weights}
    if not all(id(variable) in of_model for variable in trained_variables(optimizer)):
        raise ValueError(why_other_variables(optimizer, f"the model {model.name!r}"))


def why_other_variables(optimizer: Any, others: str) -> str:
    """The message for variables that an optimizer was not built for."""
    return (
        f"The optimizer {optimizer.name!r} was built for {len(trained_variables(optimizer))} variables and cannot "
        f"update {others}. Either layers were frozen or unfrozen after it was built, or it belongs to a different "
        "model. Compile with a new optimizer that has the same rules at their current strengths: "
        "poise.PenalizedOptimizer.from_config(poise.get_penalized_optimizer(model).get_config())."
    )


def _is_built_for(optimizer: Any, variables: Sequence[Any]) -> bool:
    if not optimizer.built:
        return True
    return [id(variable) for variable in trained_variables(optimizer)] == [id(variable) for variable in variables]


def warn_of_inactive(names: Sequence[Any]) -> None:
    """Warn of rules whose variables are not trained.

    Args:
        names: The names of the rules.
    """
    for name in names:
        warnings.warn(
            f"Rule {name!r} has no effect: every variable that it matches is frozen (trainable=False), or is not a "
            "parameter that the optimizer trains (a float8 scale, for example). Unfreeze a variable, or remove the "
            "rule.",
            stacklevel=3,
        )
