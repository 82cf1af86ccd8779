"""From Keras regularizers to rules (poise.adopt_regularizers)."""

import collections
import gc
import glob
import inspect
import itertools
import warnings

import keras
import numpy as np
from keras import regularizers

from poise.diagnostics.force_balance import check_built
from poise.optimizer.penalized import PenalizedOptimizer, get_penalized_optimizer
from poise.penalties import L1, L2, ElasticNet, MutualCoherence, Penalty
from poise.rules.members import path_of
from poise.rules.rule import Rule


def adopt_regularizers(model) -> list[Rule]:
    """Move the L1, L2, L1L2 and OrthogonalRegularizer that a model's variables carry into rules.

    The model is changed in place: its loss becomes the prediction loss, and the layers forget the regularizers of their
    variables, so that saving, cloning and loading do not bring them back. Activity regularizers stay, also where they
    are the same object. The optimizer of a compiled model is wrapped in `poise.PenalizedOptimizer(..., update="coupled")` with
    the state it had, so that training continues as that of the untouched model would; everything else that was
    compiled stays as it is. One that is compiled with `poise.PenalizedOptimizer` already gets the rules beside its own, in its
    update: with `"proximal"` they lead to the same minimum by other steps. A poise penalty that serves as a
    regularizer is moved as it is. Frozen variables count: Keras ignores their regularizers while they are frozen, and
    so does a rule.

    Args:
        model: a built Keras model, compiled or not, trained or loaded.

    Returns:
        The rules, one for each different regularizer, with the tails of its variables' paths; for a model that is not
        compiled pass them to `poise.PenalizedOptimizer`. An empty list if there is nothing to move.

    Warns:
        UserWarning: if there is nothing to move; naming the regularizers that stay in the loss, because poise does not
            know them, because they act on activations and so need data, or because they are inside
            SpectralNormalization; naming other models that share layers with
            this one and so lose their regularizers as well; and naming layers whose code makes the regularizer, so
            that it comes back when the model is loaded.

    Raises:
        ValueError: if the model is not built; if two of its variables have the same path and different regularizers;
            if it has several optimizers; if it is compiled with `update="decoupled"`, in which they would have another
            minimum; if the rules do not fit those that it has. The model is then as it was.

    Example:
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
    changed = _changed_in_the_step(model)
    known = [
        (variable, penalty)
        for variable, regularizer in carried
        if (penalty := _penalty_of(regularizer)) is not None and id(variable) not in changed
    ]
    moving = {id(variable) for variable, _ in known}
    stays = _what_stays(model, [(v, r) for v, r in carried if id(v) not in moving], changed)
    if not known:
        _warn(f"The model {model.name!r} has no weight regularizers that could be moved, so it is not changed.{stays}")
        return []
    _check_paths(known, variables)
    old = _penalized_of(model)
    rules = _rules(known, variables, [] if old is None else [rule.name for rule in old.rules])
    moved = [variable.regularizer for variable, _ in known]
    layers = model._flatten_layers()
    places = [(variable, "regularizer", variable.regularizer) for variable, _ in known]
    places += [(layer, name, held) for layer in layers for name, held in _held(layer, moved, moving)]
    for holder, name, _ in places:
        setattr(holder, name, None)
    try:
        if getattr(model, "optimizer", None) is not None:
            _wrap_optimizer(model, old, rules)
    except Exception:
        for holder, name, held in places:
            setattr(holder, name, held)
        raise
    if stays:
        _warn(f"The loss of {model.name!r} is not only the prediction loss.{stays}")
    _report_sharing(model, [variable for variable, _ in known])
    _report_return(layers, [variable for variable, _ in known])
    return rules


def _warn(message):
    warnings.warn(message, stacklevel=3)


def _penalty_of(regularizer) -> Penalty | None:
    """The penalty that a regularizer is, or None if poise does not know it."""
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


def _number(tensor):
    """The number that was given: Keras keeps the nearest float32, and 0.01 shall read as 0.01."""
    return float(str(np.float32(keras.ops.convert_to_numpy(tensor))))


def _check_paths(known, variables):
    """A rule finds its variables by path, so that a path must not lead to a variable that had no such regularizer."""
    penalties = {}
    for variable, penalty in known:
        penalties.setdefault(path_of(variable), {})[id(variable)] = repr(penalty)
    for path, by_variable in penalties.items():
        same_path = [variable for variable in variables if path_of(variable) == path]
        if len(same_path) > len(by_variable) or len(set(by_variable.values())) > 1:
            raise ValueError(
                f"{len(same_path)} variables have the path {path!r} and not the same regularizer, so that no rule can "
                "tell them apart. Give their layers different names."
            )


def _penalized_of(model):
    try:
        return get_penalized_optimizer(model)
    except ValueError:
        return None


def _rules(known, variables, taken):
    """One rule for each different penalty, named by it, with a number after a name that is taken."""
    of_path = {path_of(variable): penalty for variable, penalty in known}
    tails, penalties = collections.defaultdict(list), {}
    for path, penalty in of_path.items():
        others = {path_of(v) for v in variables} - {p for p, q in of_path.items() if repr(q) == repr(penalty)}
        tails[repr(penalty)].append(glob.escape(_tail(path, others)))
        penalties[repr(penalty)] = penalty
    return [Rule(tails[key], penalty, name=_free(key, taken)) for key, penalty in penalties.items()]


def _free(name, taken):
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _tail(path, others):
    """The shortest tail of a path, of two segments at least, that none of the other paths ends with.

    Keras may put other names in front when it builds the model again, in loading or cloning.
    """
    segments = path.split("/")
    for length in range(2, len(segments)):
        tail = "/".join(segments[-length:])
        if not any(f"/{other}".endswith(f"/{tail}") for other in others):
            return tail
    return path


def _held(layer, moved, moving):
    """(name, value) of the attributes by which a layer holds a moved regularizer for its variables, and only for them.

    Not those of activations, not those that a custom layer reads in its own code, to call them, and not those that
    also are of a variable that keeps its own.
    """
    kept = [v.regularizer for v in layer.variables if getattr(v, "regularizer", None) and id(v) not in moving]
    return [
        (name, value)
        for name, value in vars(layer).items()
        if any(value is held for held in moved)
        and not any(value is held for held in kept)
        and "activity" not in name
        and not _is_read(layer, name)
    ]


def _is_read(layer, name):
    """Whether custom code reads an attribute of a layer elsewhere than where it makes its variables or is saved."""
    making = ("__init__", "build", "get_config", "from_config")
    functions = [
        function
        for kind in type(layer).__mro__
        if not _is_of_keras(kind)
        for key, member in vars(kind).items()
        if key not in making and (function := _function_of(member)) is not None
    ]
    return any(name in _names(function.__code__) for function in functions)


def _is_of_keras(kind):
    return kind.__module__.partition(".")[0] in ("keras", "torch", "tensorflow", "builtins")


def _function_of(member):
    member = getattr(member, "fget", getattr(member, "__func__", member))
    return inspect.unwrap(member) if inspect.isfunction(member) else None


def _names(code):
    """The attributes and strings of a function, and of the functions in it."""
    names = {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))}
    return names.union(*(_names(constant) for constant in code.co_consts if inspect.iscode(constant)))


def _changed_in_the_step(model):
    """The ids of the variables that SpectralNormalization assigns in the step.

    On JAX their regularizer acts on the assigned value, and the penalty of an optimizer on the one before.
    """
    wrappers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.SpectralNormalization)]
    return {id(variable) for wrapper in wrappers for variable in wrapper.layer.variables}


def _what_stays(model, staying, changed):
    """A sentence on the regularizers that stay, or nothing."""
    stays = [
        f"{type(regularizer).__name__} on {path_of(variable)!r}"
        + (", which SpectralNormalization changes in the step" if id(variable) in changed else "")
        for variable, regularizer in staying
    ]
    for layer in model._flatten_layers():
        if getattr(layer, "activity_regularizer", None) is not None:
            stays.append(f"the activity regularizer of {layer.name!r}")
    if not stays:
        return ""
    return f" These stay in the loss: {'; '.join(stays)}. A penalty of the weights can be written as a poise.Penalty."


def _wrap_optimizer(model, old, rules):
    """Puts a PenalizedOptimizer with the rules in the place of the model's optimizer, with its state; nothing else changes."""
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
            f"The model {model.name!r} has other optimizers beside model.optimizer ({', '.join(others)}), and which of "
            "them trains which layers is not known. Adopt its networks one by one before it is compiled, and pass the "
            "rules to their optimizers: poise.PenalizedOptimizer('adam', poise.adopt_regularizers(network))."
        )
    if old is not None and old.update == "decoupled":
        raise ValueError(
            "The model is compiled with poise.PenalizedOptimizer(..., update='decoupled'), in which its regularizers would have "
            "another minimum than in the loss. Compile it with update='coupled' or 'proximal' before poise.adopt_regularizers."
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
    # Keras has no other way to say what a saved model is compiled with. Without loss scaling there it is the optimizer
    # itself, with `auto_scale_loss` that which compile wrapped.
    settings = getattr(getattr(model, "_compile_config", None), "config", {})
    if settings.get("optimizer") is inner:
        settings["optimizer"] = penalized
    model.train_function = None  # the compiled step has the old optimizer


def _report_sharing(model, variables):
    """Warns of other models that have some of the layers that lost a regularizer.

    A model that is not compiled is left out if all its layers belong to this one, or to another that is reported: it
    is a view of that, such as Keras makes inside a Sequential.
    """
    ids = {id(variable) for variable in variables}
    parts = {id(layer) for layer in model._flatten_layers()}
    losing = {id(layer) for layer in model._flatten_layers() if ids & {id(v) for v in _own_variables(layer)}}
    if not _models_with(losing, parts):
        return
    gc.collect()  # a model that was deleted may be found until then
    others = sorted(
        _models_with(losing, parts), key=lambda other: (not other.compiled, type(other).__name__ == "Functional")
    )
    known = [parts]
    for other in others:
        layers = {id(layer): layer for layer in other._flatten_layers(include_self=False)}
        shared = [repr(layer.name) for key, layer in layers.items() if key in losing]
        own = {key for key, layer in layers.items() if not isinstance(layer, keras.layers.InputLayer)}
        if not other.compiled and any(own <= each for each in known):
            continue
        known.append(own)
        warnings.warn(
            f"The model {other.name!r} shares layers with {model.name!r} and loses their regularizers as well: "
            f"{', '.join(shared)}. To train it with them, compile it with poise.PenalizedOptimizer and rules for these layers.",
            stacklevel=3,
        )


def _models_with(losing, parts):
    """The models in memory that have one of the losing layers and are not among the parts."""
    return [
        held
        for held in gc.get_objects()
        if issubclass(type(held), keras.Model)
        and id(held) not in parts
        and hasattr(held, "_layers")  # not one that is being made
        and any(id(layer) in losing for layer in held._flatten_layers())
    ]


def _own_variables(layer):
    """Those that are not of a layer inside it."""
    inner = {id(v) for child in layer._flatten_layers(include_self=False) for v in child.variables}
    return [variable for variable in layer.variables if id(variable) not in inner]


def _report_return(layers, variables):
    """Warns of custom layers whose code makes the moved regularizers, so that they come back with every new layer."""
    ids = {id(variable) for variable in variables}
    for layer in layers:
        if _is_of_keras(type(layer)) or not ids & {id(v) for v in _own_variables(layer)}:
            continue
        try:
            twin = type(layer).from_config(layer.get_config())
            twin.build_from_config(layer.get_build_config())
            comes_back = any(getattr(variable, "regularizer", None) is not None for variable in _own_variables(twin))
        except Exception:  # a layer that cannot be made again cannot be loaded either
            continue
        if comes_back:
            warnings.warn(
                f"The code of the layer {layer.name!r} ({type(layer).__name__}) makes its regularizer, which comes "
                "back when the model is saved and loaded. Make it an argument of the layer, or load the model with "
                "compile=False and call poise.adopt_regularizers again.",
                stacklevel=3,
            )
