"""Rules from the Keras regularizers of a model (poise.adopt_regularizers)."""

import collections
import gc
import glob
import inspect
import itertools
import types
import warnings
from typing import Any

import keras
import numpy as np
from keras import regularizers

from poise._keras_internals import compile_settings, is_set_up, sublayers
from poise.diagnostics.force_balance import check_built
from poise.optimizer.lookup import find_penalized_optimizer
from poise.optimizer.penalized import PenalizedOptimizer
from poise.penalties import L1, L2, ElasticNet, MutualCoherence, Penalty
from poise.rules.members import path_of
from poise.rules.rule import Rule


def adopt_regularizers(model: keras.Model) -> list[Rule]:
    """Move the Keras regularizers of a model's variables from its loss into rules of its optimizer.

    This moves `L1`, `L2`, `L1L2` and `OrthogonalRegularizer`, and poise penalties that are used as regularizers. The
    model is changed in place:

    - Its loss becomes the prediction loss. The layers forget the regularizers of their variables, so saving, cloning
      and loading do not bring them back. Activity regularizers stay.
    - The optimizer of a compiled model is wrapped in `poise.PenalizedOptimizer(..., update="coupled")` and keeps its
      state, so training continues exactly as before. Everything else that was compiled stays.
    - If the model is compiled with a `poise.PenalizedOptimizer`, the rules are added to its rules, under its `update`.
      With "auto" and "proximal", training converges to the same solution, but the individual steps differ.

    Frozen variables are included: Keras ignores their regularizers while they are frozen, and so does a rule.

    Args:
        model: Built `keras.Model`, compiled or not, trained or loaded.

    Returns:
        A list of rules, one per distinct regularizer. Each rule selects the variables that had this regularizer, by the
        last segments of their paths. The list is empty if there is nothing to move. If the model is not compiled, pass
        the rules to `poise.PenalizedOptimizer`.

    Warns:
        UserWarning: If there is nothing to move; for regularizers that stay in the loss, because poise does not know
            them, they act on activations, or they are inside a `SpectralNormalization`; for other models that share
            layers with this one and lose their regularizers; and for layers whose code creates the regularizer, which
            comes back when the model is loaded.

    Raises:
        ValueError: If the model is not built; if two of its variables have the same path and different regularizers; if
            it has several optimizers; if it is compiled with `update="decoupled"`, because moving the regularizers
            would change the solution; or if the rules do not fit its other rules. The model is then unchanged.

    Examples:
        >>> import poise, keras
        >>> dense = keras.layers.Dense(1, kernel_regularizer="l2")
        >>> model = keras.Sequential([keras.Input((4,)), dense])
        >>> [rule] = poise.adopt_regularizers(model)
        >>> rule.penalty
        L2(strength=0.01)
    """
    check_built(model)
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    carried = [(v, v.regularizer) for v in variables if getattr(v, "regularizer", None) is not None]
    normalized = _normalized_in_steps(model)
    known = [
        (variable, penalty)
        for variable, regularizer in carried
        if (penalty := _penalty_of(regularizer)) is not None and id(variable) not in normalized
    ]
    moving = {id(variable) for variable, _ in known}
    remaining = _describe_remaining(model, [(v, r) for v, r in carried if id(v) not in moving], normalized)
    if not known:
        _warn(f"The model {model.name!r} has no weight regularizers to move, so it is not changed.{remaining}")
        return []
    _check_paths(known, variables)
    old = find_penalized_optimizer(model)
    rules = _make_rules(known, variables, [] if old is None else [str(rule.name) for rule in old.rules])
    moved = [variable.regularizer for variable, _ in known]
    layers = sublayers(model)
    holders = [(variable, "regularizer", variable.regularizer) for variable, _ in known]
    holders += [(layer, name, value) for layer in layers for name, value in _find_attributes(layer, moved, moving)]
    for holder, name, _ in holders:
        setattr(holder, name, None)
    try:
        if getattr(model, "optimizer", None) is not None:
            _wrap_optimizer(model, old, rules)
    except Exception:
        for holder, name, value in holders:
            setattr(holder, name, value)
        raise
    if remaining:
        _warn(f"The loss of {model.name!r} is not only the prediction loss.{remaining}")
    _warn_of_shared_layers(model, [variable for variable, _ in known])
    _warn_of_recreated_regularizers(layers, [variable for variable, _ in known])
    return rules


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _penalty_of(regularizer: Any) -> Penalty | None:
    """Return the penalty that equals a regularizer, or None if poise does not know it."""
    kind = type(regularizer)
    if isinstance(regularizer, Penalty):
        return regularizer
    if kind is regularizers.L1:
        return L1(_number(regularizer.l1))
    if kind is regularizers.L2:
        return L2(_number(regularizer.l2))
    if kind is regularizers.L1L2:
        l1, l2 = _number(regularizer.l1), _number(regularizer.l2)
        return L2(l2) if l1 == 0 else L1(l1) if l2 == 0 else ElasticNet(l1, l2)
    if kind is regularizers.OrthogonalRegularizer:
        return MutualCoherence(_number(regularizer.factor), regularizer.mode)
    return None


def _number(tensor: Any) -> float:
    """Return the shortest number with this float32 value, since Keras converts 0.01 to float32."""
    return float(str(np.float32(keras.ops.convert_to_numpy(tensor))))


def _check_paths(known: list[tuple[Any, Penalty]], variables: list[Any]) -> None:
    """Raise ValueError if a path belongs to variables with different regularizers, since rules select by path."""
    penalties: dict[str, dict[int, str]] = {}
    for variable, penalty in known:
        penalties.setdefault(path_of(variable), {})[id(variable)] = repr(penalty)
    for path, by_variable in penalties.items():
        same_path = [variable for variable in variables if path_of(variable) == path]
        if len(same_path) > len(by_variable) or len(set(by_variable.values())) > 1:
            raise ValueError(
                f"{len(same_path)} variables have the path {path!r} but different regularizers, so a rule cannot "
                "distinguish them. Give their layers different names."
            )


def _make_rules(known: list[tuple[Any, Penalty]], variables: list[Any], taken: list[str]) -> list[Rule]:
    """Return one rule per distinct penalty, named after it, with a number if the name is taken."""
    by_path = {path_of(variable): penalty for variable, penalty in known}
    tails: dict[str, list[str]] = collections.defaultdict(list)
    penalties: dict[str, Penalty] = {}
    for path, penalty in by_path.items():
        others = {path_of(v) for v in variables} - {p for p, q in by_path.items() if repr(q) == repr(penalty)}
        tails[repr(penalty)].append(glob.escape(_tail(path, others)))
        penalties[repr(penalty)] = penalty
    return [Rule(tails[key], penalty, name=_free_name(key, taken)) for key, penalty in penalties.items()]


def _free_name(name: str, taken: list[str]) -> str:
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _tail(path: str, others: set[str]) -> str:
    """Return the shortest end of a path, of at least two segments, with which no other path ends.

    Keras may change the first segments when it rebuilds the model in loading or cloning.
    """
    segments = path.split("/")
    for length in range(2, len(segments)):
        tail = "/".join(segments[-length:])
        if not any(f"/{other}".endswith(f"/{tail}") for other in others):
            return tail
    return path


def _find_attributes(layer: Any, moved: list[Any], moving: set[int]) -> list[tuple[str, Any]]:
    """Return (name, value) of the attributes of a layer that hold a moved regularizer for its variables only.

    This leaves out regularizers of activations, attributes that the code of a custom layer reads, and regularizers of
    a variable that keeps them.
    """
    kept = [v.regularizer for v in layer.variables if getattr(v, "regularizer", None) and id(v) not in moving]
    return [
        (name, value)
        for name, value in vars(layer).items()
        if any(value is regularizer for regularizer in moved)
        and not any(value is regularizer for regularizer in kept)
        and "activity" not in name
        and not _is_read(layer, name)
    ]


def _is_read(layer: Any, name: str) -> bool:
    """Whether custom code reads an attribute of a layer, apart from creating and saving the layer."""
    creating = ("__init__", "build", "get_config", "from_config")
    functions = [
        function
        for kind in type(layer).__mro__
        if not _is_of_keras(kind)
        for key, member in vars(kind).items()
        if key not in creating and (function := _function_of(member)) is not None
    ]
    return any(name in _names(function.__code__) for function in functions)


def _is_of_keras(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("keras", "torch", "tensorflow", "builtins")


def _function_of(member: Any) -> Any:
    member = getattr(member, "fget", getattr(member, "__func__", member))
    return inspect.unwrap(member) if inspect.isfunction(member) else None


def _names(code: types.CodeType) -> set[str]:
    """Return the attributes and strings of a function and of the functions inside it."""
    names = {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))}
    return names.union(*(_names(constant) for constant in code.co_consts if inspect.iscode(constant)))


def _normalized_in_steps(model: Any) -> set[int]:
    """Return the ids of the variables that SpectralNormalization assigns during a training step.

    On JAX, their regularizer acts on the normalized value that is assigned during the step; a penalty of the optimizer
    acts on the value from before the assignment.
    """
    wrappers = [layer for layer in sublayers(model) if isinstance(layer, keras.layers.SpectralNormalization)]
    return {id(variable) for wrapper in wrappers for variable in wrapper.layer.variables}


def _describe_remaining(model: Any, remaining: list[tuple[Any, Any]], normalized: set[int]) -> str:
    """Return a sentence about the regularizers that stay, "" if there are none."""
    names = [
        f"{type(regularizer).__name__} on {path_of(variable)!r}"
        + (", which SpectralNormalization changes in the step" if id(variable) in normalized else "")
        for variable, regularizer in remaining
    ]
    for layer in sublayers(model):
        if getattr(layer, "activity_regularizer", None) is not None:
            names.append(f"the activity regularizer of {layer.name!r}")
    if not names:
        return ""
    return f" These stay in the loss: {'; '.join(names)}. A custom weight penalty can be written as a poise.Penalty."


def _wrap_optimizer(model: Any, old: PenalizedOptimizer | None, rules: list[Rule]) -> None:
    """Replace the model's optimizer by a PenalizedOptimizer with the rules and its state."""
    outer = model.optimizer
    is_scaled = isinstance(outer, keras.optimizers.LossScaleOptimizer)
    inner = outer.inner_optimizer if is_scaled else outer
    others = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not outer and value is not inner
    ]
    if others:
        raise ValueError(
            f"The model {model.name!r} has other optimizers besides model.optimizer ({', '.join(others)}), and poise "
            "does not know which layers each one trains. Before you compile it, call adopt_regularizers for each of "
            "its networks: poise.PenalizedOptimizer('adam', poise.adopt_regularizers(network))."
        )
    if old is not None and old.update == "decoupled":
        raise ValueError(
            "The model is compiled with poise.PenalizedOptimizer(..., update='decoupled'), and moving the "
            "regularizers would change the solution. Compile it with update='auto', 'coupled' or 'proximal' before "
            "you call poise.adopt_regularizers."
        )
    if old is None:
        penalized = PenalizedOptimizer(inner, rules, update="coupled")
        if inner.built:
            penalized.build(model.trainable_variables, model)
    else:
        penalized = old.with_rules(rules, model.trainable_variables, model)
    if is_scaled:
        outer.inner_optimizer = penalized
    for name in [name for name, value in vars(model).items() if value is inner]:
        setattr(model, name, penalized)
    # What a saved model is compiled with. It has the optimizer itself, or with `auto_scale_loss` the optimizer that
    # compile wrapped.
    settings = compile_settings(model)
    if settings.get("optimizer") is inner:
        settings["optimizer"] = penalized
    model.train_function = None  # the compiled step uses the old optimizer


def _warn_of_shared_layers(model: Any, variables: list[Any]) -> None:
    """Warn of other models with layers that lost a regularizer.

    A model that is not compiled is left out if all of its layers belong to this model or another reported one: it is a
    view of that model, as Keras creates inside of a Sequential.
    """
    ids = {id(variable) for variable in variables}
    parts = {id(layer) for layer in sublayers(model)}
    losing = {id(layer) for layer in sublayers(model) if ids & {id(v) for v in _direct_variables(layer)}}
    if all(_is_view(other, [parts]) for other in _models_with(losing, parts)):
        return
    gc.collect()  # deleted models may still exist before
    others = sorted(
        _models_with(losing, parts), key=lambda other: (not other.compiled, type(other).__name__ == "Functional")
    )
    reported = [parts]
    for other in others:
        if _is_view(other, reported):
            continue
        reported.append(_layer_ids(other))
        shared = [repr(layer.name) for layer in sublayers(other, include_self=False) if id(layer) in losing]
        warnings.warn(
            f"The model {other.name!r} shares layers with {model.name!r} and loses their regularizers as well: "
            f"{', '.join(shared)}. To keep them, compile it with poise.PenalizedOptimizer and rules for these layers.",
            stacklevel=3,
        )


def _models_with(losing: set[int], parts: set[int]) -> list[Any]:
    """Return the models in memory that have a layer in `losing` and are not in `parts`."""
    return [
        model
        for model in gc.get_objects()
        if issubclass(type(model), keras.Model)
        and id(model) not in parts
        and is_set_up(model)
        and any(id(layer) in losing for layer in sublayers(model))
    ]


def _is_view(model: Any, reported: list[set[int]]) -> bool:
    """Return whether a model is not compiled and all its layers belong to one reported model, given by layer ids."""
    return not model.compiled and any(_layer_ids(model) <= layers for layers in reported)


def _layer_ids(model: Any) -> set[int]:
    layers = sublayers(model, include_self=False)
    return {id(layer) for layer in layers if not isinstance(layer, keras.layers.InputLayer)}


def _direct_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer without the variables of its sublayers."""
    inner = {id(v) for child in sublayers(layer, include_self=False) for v in child.variables}
    return [variable for variable in layer.variables if id(variable) not in inner]


def _warn_of_recreated_regularizers(layers: list[Any], variables: list[Any]) -> None:
    """Warn of custom layers whose code creates the moved regularizers, which come back when the layer is loaded."""
    ids = {id(variable) for variable in variables}
    for layer in layers:
        if _is_of_keras(type(layer)) or not ids & {id(v) for v in _direct_variables(layer)}:
            continue
        try:
            twin = type(layer).from_config(layer.get_config())
            twin.build_from_config(layer.get_build_config())
            comes_back = any(getattr(variable, "regularizer", None) is not None for variable in _direct_variables(twin))
        except Exception:  # a layer that cannot be recreated cannot be loaded either
            continue
        if comes_back:
            warnings.warn(
                f"The code of the layer {layer.name!r} ({type(layer).__name__}) creates its regularizer, which comes "
                "back when the model is saved and loaded. Make it an argument of the layer, or load the model with "
                "compile=False and call poise.adopt_regularizers again.",
                stacklevel=3,
            )
