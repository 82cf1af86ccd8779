"""From Keras regularizers to rules (poise.adopt)."""

import collections
import glob
import itertools
import warnings

import keras
import numpy as np
from keras import regularizers

from poise.balance import check_built
from poise.members import path_of
from poise.optimizer import Penalized, find_penalized
from poise.penalties import L1, L2, Coherence, ElasticNet, Penalty
from poise.rules import Rule


def adopt(model) -> list[Rule]:
    """Moves the L1, L2, L1L2 and OrthogonalRegularizer that a model's variables carry into rules.

    The model is changed in place: its loss becomes the prediction loss, and the layers forget their regularizers, so
    that saving, cloning and loading do not bring them back. A compiled model also gets its optimizer wrapped in
    `poise.Penalized(..., update="coupled")` with the state it had, so that training goes on as the untouched model's
    would have. One that is compiled with `poise.Penalized` already gets the rules beside its own, in its update: with
    `"proximal"` they lead to the same minimum by other steps. A poise penalty that serves as a regularizer is moved as
    it is. Frozen variables count: Keras ignores their regularizers while they are frozen, and so does a rule.

    Args:
        model: a built Keras model, compiled or not, trained or loaded.

    Returns:
        The rules, one for each different regularizer, with the tails of its variables' paths; for a model that is not
        compiled pass them to `poise.Penalized`. An empty list if there is nothing to move.

    Warns:
        UserWarning: naming the regularizers that stay in the loss, because poise does not know them or because they
            act on activations and so need data.

    Raises:
        ValueError: if the model is not built; if two of its variables have the same path and different regularizers;
            if it is compiled with `update="decoupled"`, in which they would have another minimum; if the rules do not
            fit those that it has. The model is then as it was.

    Example:
        >>> import poise, keras
        >>> dense = keras.layers.Dense(1, kernel_regularizer="l2")
        >>> model = keras.Sequential([keras.Input((4,)), dense])
        >>> [rule] = poise.adopt(model)
        >>> rule.penalty
        L2(strength=0.01)
    """
    check_built(model)
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    carried = [(v, v.regularizer) for v in variables if getattr(v, "regularizer", None) is not None]
    known = [(v, penalty) for v, regularizer in carried if (penalty := _penalty_of(regularizer)) is not None]
    _check_paths(known, variables)
    old = _penalized_of(model)
    rules = _rules(known, variables, [] if old is None else [rule.name for rule in old.rules])
    moved = [regularizer for _, regularizer in carried if _penalty_of(regularizer) is not None]
    holders = [*(variable for variable, _ in known), *model._flatten_layers()]
    places = [(holder, name, held) for holder in holders for name, held in _held(holder, moved)]
    for holder, name, _ in places:
        setattr(holder, name, None)
    try:
        if rules and getattr(model, "optimizer", None) is not None:
            _recompile(model, old, rules)
    except Exception:
        for holder, name, held in places:
            setattr(holder, name, held)
        raise
    _name_what_stays(model, [(v, r) for v, r in carried if _penalty_of(r) is None])
    return rules


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
        return Coherence(_number(regularizer.factor), regularizer.mode)
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
        return find_penalized(model)
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


def _held(holder, moved):
    """(name, value) of the attributes of a layer or a variable that hold one of the moved regularizers."""
    if isinstance(holder, keras.Variable):
        return [("regularizer", holder.regularizer)]
    return [(name, value) for name, value in vars(holder).items() if any(value is held for held in moved)]


def _name_what_stays(model, unknown):
    stays = [f"{type(regularizer).__name__} on {path_of(variable)!r}" for variable, regularizer in unknown]
    for layer in model._flatten_layers():
        if getattr(layer, "activity_regularizer", None) is not None:
            stays.append(f"the activity regularizer of {layer.name!r}")
    if stays:
        warnings.warn(
            f"These stay in the loss, which so is not the prediction loss alone: {'; '.join(stays)}. "
            "A penalty of the weights can be written as a poise.Penalty.",
            stacklevel=3,
        )


def _recompile(model, old, rules):
    """Compiles the model as it was, with its optimizer, state included, wrapped in a Penalized with the rules."""
    settings = dict(model._compile_config.config)
    outer = model.optimizer
    if old is not None and old.update == "decoupled":
        raise ValueError(
            "The model is compiled with poise.Penalized(..., update='decoupled'), in which its regularizers would have "
            "another minimum than in the loss. Compile it with update='coupled' or 'proximal' before poise.adopt."
        )
    is_scaled = isinstance(outer, keras.optimizers.LossScaleOptimizer)
    inner = outer.inner_optimizer if is_scaled else outer
    if old is None:
        penalized = Penalized(inner, rules)
        if inner.built:
            penalized.build(model.trainable_variables, model)
    else:
        penalized = old.with_rules(rules, model.trainable_variables, model)
    if is_scaled:
        outer.inner_optimizer = penalized
    model.compile(**{**settings, "optimizer": outer if is_scaled else penalized})
