"""Rules that set all weights of an input to exactly zero, so that the model no longer reads it."""

import glob
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from poise.compaction.inputs import InputKernel, input_kernels
from poise.penalties import L2, GroupLasso, Penalty
from poise.rules.members import path_of
from poise.rules.rule import PENALIZED_BY_DEFAULT, Rule

LATER_L2_RATIO = 0.15
"""The strength of L2 on the later kernels, relative to the penalty of the inputs.

Without it, a network with ReLU makes its first kernel small and the next one large, which evades the penalty.
"""
INPUT_RULE_NAME = "input_sparsity"
LATER_RULE_NAME = "later_kernels"


def input_sparsity(model: Any, strength: float = 1.0, groups: Sequence[Sequence[int]] | None = None) -> list[Rule]:
    """Create rules that set all weights of an input to exactly zero, so that the model no longer reads that input.

    The total is loss + strength · (Σ_g ‖W_g‖₂ + 0.15 Σ ‖U‖²). W_g are all weights of a kernel that read the inputs of
    group g, and U are the later kernels. These rules are those of the penalties `"group"` and `"adaptive"` of a study
    and of the estimators. `poise.fit_path(model, x, y, poise.input_sparsity(model), adaptive=2)` finds the strength.

    Args:
        model: Built functional or sequential `keras.Model`.
        strength: Float > 0. Default: 1.0.
        groups: Lists of inputs that become zero together, such as the one-hot columns of a categorical feature, for a
            model with one input of the shape (rows, inputs). Inputs in no list are not penalized. Default: None, which
            makes every input its own group.

    Returns:
        A `poise.Rule` named "input_sparsity" with a `poise.GroupLasso`; "input_sparsity_2", … for kernels that read
        other inputs, such as a selection of them; and "later_kernels" with `poise.L2` if there are later kernels.

    Raises:
        TypeError: If `model` is not a Keras model, or an argument has a wrong type.
        ValueError: If the kernels that read the inputs cannot be determined, or an argument has a wrong value.

    References:
        Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables" (group lasso);
        Scardapane et al. 2017, "Group sparse regularization for deep neural networks" (of the inputs of a network).

    Examples:
        >>> import poise, keras
        >>> hidden, head = keras.layers.Dense(4, name="hidden"), keras.layers.Dense(1, name="head")
        >>> model = keras.Sequential([keras.Input((3,)), hidden, head])
        >>> [(rule.select, type(rule.penalty).__name__) for rule in poise.input_sparsity(model, 0.01)]
        [(['hidden/kernel'], 'GroupLasso'), ([poise.Role.KERNELS, poise.Role.EMBEDDINGS], 'L2')]
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"input_sparsity needs a Keras model, got {model!r}.")
    if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
        raise TypeError(f"strength must be a number > 0, got {strength!r}.")
    if not strength > 0:
        raise ValueError(f"strength must be a number > 0, got {strength!r}.")
    if groups is None:
        return make_input_rules(model, GroupLasso(strength, "inputs", factors=[1.0]))
    return make_input_rules(model, GroupLasso(strength, groups, axis="inputs", factors=[1.0] * len(groups)))


def make_input_rules(model: keras.Model, penalty: Penalty) -> list[Rule]:
    """Return the rules that put a penalty of groups of inputs on the kernels that read them, and L2 on the others.

    Args:
        model: Built model.
        penalty: Has groups along the inputs, and a number as its strength.

    Raises:
        ValueError: If the kernels that read the inputs cannot be determined, or do not have the groups of the penalty.
    """
    kernels = input_kernels(model)
    if not kernels:
        raise ValueError(
            f"poise cannot determine which kernels of the model {model.name!r} read its inputs. Put a poise.GroupLasso "
            "on these kernels with poise.Rule."
        )
    has_lists = isinstance(getattr(penalty, "groups", None), list)
    if has_lists and not all(_reads_rows(kernel, model) for kernel in kernels):
        raise ValueError(
            f"groups needs a model with one input of the shape (rows, inputs) that feeds only Dense layers, got the "
            f"model {model.name!r}. Add a poise.Rule with a poise.GroupLasso for each of its first kernels instead."
        )
    paths = [_unique_tail(path_of(model.weights[kernel.position]), model) for kernel in kernels]
    select: dict[bytes, list[str]] = {}  # kernels that read the same inputs share a rule
    penalties: dict[bytes, Any] = {}
    for kernel, path in zip(kernels, paths, strict=True):
        key = kernel.inputs.tobytes() if has_lists else b""
        select.setdefault(key, []).append(path)
        penalties[key] = restrict_groups(penalty, kernel.inputs) if has_lists else penalty
    first = [(select[key], each) for key, each in penalties.items() if each is not None]
    names = [INPUT_RULE_NAME, *(f"{INPUT_RULE_NAME}_{number}" for number in range(2, len(first) + 1))]
    rules = [Rule(taken, each, name=name) for name, (taken, each) in zip(names, first, strict=False)]
    later = Rule(
        list(PENALIZED_BY_DEFAULT), L2(LATER_L2_RATIO * float(penalty.strength)), exclude=paths, name=LATER_RULE_NAME
    )
    has_later = any(map(later.applies_to, model.trainable_weights))
    return [*rules, *([later] if has_later else [])]


def restrict_groups(penalty: Any, inputs: np.ndarray) -> Any:
    """Return a penalty of groups of inputs for a kernel that reads some of the inputs; None if it reads no group.

    Args:
        penalty: Its `groups` are lists of inputs.
        inputs: (rows of the kernel,) the input that each row reads.
    """
    config = penalty.get_config()
    place = {position: number for number, position in enumerate(inputs.tolist())}
    groups = [[place[i] for i in group if i in place] for group in penalty.groups]
    if not any(groups):
        return None
    factors = config["factors"]
    if factors is not None and len(factors) == len(groups):
        factors = [factor for factor, group in zip(factors, groups, strict=True) if group]
    return type(penalty).from_config({**config, "groups": [group for group in groups if group], "factors": factors})


def _reads_rows(kernel: InputKernel, model: keras.Model) -> bool:
    """Return whether the rows of a dense kernel belong to columns of one input tensor."""
    return kernel.axis == 0 and len(model.weights[kernel.position].shape) == 2 and len(model.inputs) == 1


def _unique_tail(path: str, model: keras.Model) -> str:
    """Return the end of a variable's path that no other has; Keras changes the beginning when it rebuilds a model."""
    parts = path.split("/")
    others = [path_of(w).split("/") for w in model.weights if path_of(w) != path]
    size = next(n for n in range(1, len(parts) + 1) if not any(other[-n:] == parts[-n:] for other in others))
    return glob.escape("/".join(parts[-max(size, min(2, len(parts))) :]))
