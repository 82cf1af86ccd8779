"""The penalties that a study compares, by name, and the network that they are put on."""

import glob
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from poise.compaction.inputs import input_kernels
from poise.path.models import check_model
from poise.path.result import RegularizationPath
from poise.penalties import L1, L2, MCP, SCAD, ElasticNet, GroupLasso, SparseGroupLasso
from poise.rules.members import path_of
from poise.rules.rule import PENALIZED_BY_DEFAULT, Rule
from poise.study.sources import DataError

REST = 0.5
"""The strength of L2 on the later kernels, in units of the first: ReLU could else shrink a layer and grow the next."""


@dataclass(frozen=True)
class Kind:
    """A penalty that a study can be asked for.

    Args:
        title: as people read it.
        meaning: what it does, in a few words.
        make: a function of the groups of inputs, for a penalty that drops whole columns, else of nothing.
        by_column: whether it goes on the first kernels in groups of columns, with L2 on the rest.
        adaptive: how many adaptive stages.
        plain: the penalty whose path is the first of the stages.
    """

    title: str
    meaning: str
    make: Callable
    by_column: bool = False
    adaptive: int = 0
    plain: str | None = None


def _group(groups):
    return GroupLasso(1.0, groups=groups, axis="inputs", factors=[1.0] * len(groups))


def _sparse_group(groups):
    return SparseGroupLasso(1.0, groups=groups, axis="inputs", factors=[1.0] * len(groups))


KINDS = {
    "l2": Kind("L2", "small weights", L2),
    "l1": Kind("L1", "single weights become zero", L1),
    "group": Kind("Group lasso", "whole columns are dropped, L2 on the rest", _group, by_column=True),
    "adaptive": Kind(
        "Adaptive group lasso", "the same, reweighted twice", _group, by_column=True, adaptive=2, plain="group"
    ),
    "elasticnet": Kind("Elastic net", "L1 and L2 together", lambda: ElasticNet(l1=1.0, l2=1.0)),
    "sparse_group": Kind("Sparse group lasso", "columns and single weights", _sparse_group, by_column=True),
    "mcp": Kind("MCP", "single weights become zero, large ones stay", MCP),
    "scad": Kind("SCAD", "single weights become zero, large ones stay", SCAD),
}
DEFAULTS = ("l2", "l1", "group", "adaptive")


def kind_of(name: str) -> Kind:
    if name not in KINDS:
        raise DataError(f"Penalty {name!r} is unknown. Use one of {', '.join(KINDS)}.")
    return KINDS[name]


def trained_for(name: str, names: Sequence[str]) -> str:
    """Of the penalties asked for the one whose path holds that of `name`: an adaptive one begins with the plain one."""
    return next((other for other in names if kind_of(other).plain == name), name)


def started(
    task: str,
    inputs: int,
    classes: int,
    y: np.ndarray,
    weight: np.ndarray | None,
    hidden: Sequence[int],
    learning_rate: float,
    model: str | Callable[[int, int], keras.Model] | None = None,
) -> keras.Model:
    """The compiled network from which every lane starts: that of `network`, or one's own.

    Args:
        task: "regression", "binary", "multiclass" or "counts".
        inputs: how many.
        classes: how many; 0 for none.
        y, weight: of all rows that train, as the network takes them; weight may be None.
        hidden: units of the hidden layers.
        learning_rate: of Adam, where one's own model is not compiled.
        model: one's own, as for `poise.run_study`.

    Raises:
        DataError: one's own model cannot be used.
    """
    outputs = classes if task == "multiclass" else 1
    if model is None:
        made = network(inputs, outputs, hidden, task)
        made.layers[-1].bias.assign(first_bias(task, y, outputs, weight))
    else:
        made = _own_model(model, inputs, outputs)
    optimizer = getattr(made, "optimizer", None) or keras.optimizers.Adam(learning_rate)
    made.compile(optimizer=optimizer, loss=loss_of(task))
    try:
        check_model(made)
    except ValueError as error:
        raise DataError(f"The model {made.name!r} cannot be trained in lanes. {error}") from None
    return made


def network(inputs: int, outputs: int, hidden: Sequence[int], task: str) -> keras.Model:
    """Dense ReLU layers, and one output layer: a number, a logit, a logit a class, or a mean count."""
    layers = [
        keras.layers.Dense(units, activation="relu", kernel_initializer="glorot_normal", name=f"hidden_{number}")
        for number, units in enumerate(hidden, 1)
    ]
    last = keras.layers.Dense(
        outputs, activation="exponential" if task == "counts" else None, kernel_initializer="glorot_normal",
        name="output",
    )  # fmt: skip
    return keras.Sequential([keras.Input((inputs,), name="inputs"), *layers, last], name="network")


def loss_of(task: str) -> keras.losses.Loss:
    if task == "regression":
        return keras.losses.MeanSquaredError()
    if task == "counts":
        return keras.losses.Poisson()
    if task == "binary":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def first_bias(task: str, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
    """(outputs,) what the output layer says of every row at the start: the log odds or frequencies, or the log mean."""
    least = 0.5 / len(y)  # of half a row, where a class has none
    if task == "multiclass":
        counts = np.bincount(y, weight, minlength=outputs)
        return np.log(np.maximum(counts / counts.sum(), least))
    mean = float(np.average(y[:, 0], weights=weight))
    if task == "binary":
        share = min(max(mean, least), 1.0 - least)
        return np.array([np.log(share / (1.0 - share))])
    return np.array([np.log(max(mean, 1e-6))]) if task == "counts" else np.zeros(outputs)


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """(rows, classes) of logits: one of the second class, or one a class."""
    logits = np.hstack([np.zeros_like(outputs), outputs]) if outputs.shape[1] == 1 else outputs
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def rules_of(name: str, model: keras.Model, owners: Sequence[str]) -> list[Rule]:
    """The rules of a penalty for a model whose inputs belong to columns.

    Raises:
        DataError: if the penalty drops columns, and it cannot be told which kernels of the model read them.
    """
    kind = kind_of(name)
    if not kind.by_column:
        return [Rule(list(PENALIZED_BY_DEFAULT), kind.make())]
    kernels = input_kernels(model)
    if not kernels or any(one.axis != 0 or len(model.weights[one.position].shape) != 2 for one in kernels):
        raise DataError(
            f"Penalty {name!r} drops columns, and it cannot be told which kernels of the model {model.name!r} read "
            "them: its inputs do not go into dense layers. Use --penalty l2 or l1."
        )
    groups = [np.flatnonzero(np.asarray(owners) == column).tolist() for column in dict.fromkeys(owners)]
    positions = [kernel.position for kernel in kernels]
    first = [_tail(path_of(model.weights[at]), model) for at in positions]
    own = [id(model.weights[at]) for at in positions]
    rest = [w for w in model.trainable_weights if id(w) not in own and len(w.shape) > 1]
    rules = [Rule(first, kind.make(groups), name="columns")]
    return [*rules, Rule(list(PENALIZED_BY_DEFAULT), L2(REST), exclude=first, name="rest")] if rest else rules


def best_stage(path: RegularizationPath) -> RegularizationPath:
    """Of a path and the adaptive stages before it the one whose held-out loss is lowest: the one that predicts.

    Raises:
        ValueError: in one of them a lane diverged at every strength.
    """
    stages = [*path.stages, path]
    return stages[int(np.argmin([row_of(stage, stage.best_strength)["val_loss"] for stage in stages]))]


def row_of(path: RegularizationPath, strength: float) -> pd.Series:
    """The row of a path's table that is nearest to a strength."""
    table = path.table
    return table.iloc[int((table["strength"] - strength).abs().argmin())]


def _tail(path: str, model: keras.Model) -> str:
    """The end of a variable's path that no other has: Keras leaves out its beginning when it rebuilds a model."""
    parts = path.split("/")
    others = [path_of(w).split("/") for w in model.weights if path_of(w) != path]
    size = next(n for n in range(1, len(parts) + 1) if not any(other[-n:] == parts[-n:] for other in others))
    return glob.escape("/".join(parts[-max(size, min(2, len(parts))) :]))


def _own_model(model, inputs: int, outputs: int) -> keras.Model:
    if isinstance(model, str):
        module, found, name = model.partition(":")
        try:
            if not found:
                raise ImportError("there is no colon in it")
            model = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DataError(
                f"The model {module}:{name} cannot be imported: {error}. Write it as MODULE:FUNCTION, with the module "
                "in this folder or on PYTHONPATH."
            ) from None
    made = model(inputs, outputs)
    if not isinstance(made, keras.Model) or not made.built:
        raise DataError(
            f"The model's function returned {type(made).__name__} for {inputs} inputs and {outputs} outputs. Return a "
            "built Keras model, such as keras.Sequential([keras.Input((inputs,)), ...])."
        )
    if tuple(made.output_shape) != (None, outputs):
        raise DataError(
            f"The model's outputs have the shape {made.output_shape}, and the task needs (None, {outputs})."
        )
    return made
